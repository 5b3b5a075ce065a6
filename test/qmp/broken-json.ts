/** Texts that are nearly JSON, made at random, the same each time. */

const pieces = [
  ...['{', '}', '[', ']', ':', ',', '"a"', '"b"', "'c'", '1', '-', '0', '01', '1.5', 'true', 'nul', '@', ' ', '\t'],
  ...['"\\u00e9"', '"\\q"', '"\\ud800"', '%', 'A', '\x01', '{"execute":"query-name","id":', '1e5', '"x\x02', '\\'],
].map((text) => Buffer.from(text));
const bytes = [...pieces, Buffer.from([0xff]), Buffer.from('"é"'), Buffer.from([0xc3, 0x28])];

/** Numbers from 0 to 1, the same for the same seed. */
export function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Each text ends with 0xFF, which ends whatever it began. */
export function brokenTexts(count: number): Buffer[] {
  const next = numbers(7);
  const any = <T>(list: readonly T[]) => list[Math.floor(next() * list.length)] as T;
  return Array.from({ length: count }, () => {
    let text = Buffer.concat(Array.from({ length: 1 + Math.floor(next() * 12) }, () => any(bytes)));
    if (next() < 0.4) {
      text = Buffer.from('{"execute":"query-name","id":{"a":[1,2,{"b":"c"}]}}');
      for (let n = Math.floor(next() * 3); n >= 0; n--) {
        const at = Math.floor(next() * text.length);
        const insert = next() < 0.5 ? any(bytes) : Buffer.alloc(0);
        text = Buffer.concat([text.subarray(0, at), insert, text.subarray(at + 1)]);
      }
    }
    return Buffer.concat([text, Buffer.from([0xff])]);
  });
}
