/** What RAM contains in scenarios: 1 MiB that looks random, and is the same everywhere. The rest is zero. */
export function scenarioRam(): Uint8Array {
  const words = new Uint32Array(1 << 18);
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}
