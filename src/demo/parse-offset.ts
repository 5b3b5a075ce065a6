/** Offsets as the command line takes them: decimal or 0x hex, with an optional suffix K, M, G or T. */
export function parseOffset(text: string): number | undefined {
  const [, digits, suffix] = /^(0x[0-9a-f]+|\d+)([kmgt]?)$/i.exec(text.trim()) ?? [];
  if (digits === undefined || suffix === undefined) return undefined;
  const offset = Number(digits) * 1024 ** ' kmgt'.indexOf(suffix.toLowerCase() || ' ');
  return Number.isSafeInteger(offset) ? offset : undefined;
}
