/**
 * Patterns for a search in RAM: bytes, each with a mask, or a regular expression over bytes. Text becomes bytes with
 * masks, too. To ignore case, the mask leaves out the bit in which the letters differ.
 *
 * A regular expression sees each byte as the character with the byte's number (U+0000 to U+00FF), so `\xff` is a byte.
 * `tasks/search/finder.ts` decides what matches.
 */

/** The most bytes in a pattern, and in the match of a regular expression. */
export const maxMatchBytes = 4096;

/** Byte k matches if `(byte & masks[k]) === values[k]`. */
export interface BytePattern {
  readonly values: Uint8Array;
  readonly masks: Uint8Array;
}

/** The patterns of `search`. Text stands for its UTF-8 bytes. */
export type SearchPattern = string | Uint8Array | RegExp | BytePattern;

/** How text is searched for. */
export interface TextPatternOptions {
  /** Default `utf-8`. */
  encoding?: 'utf-8' | 'utf-16le';
  /** ASCII letters match in either case. Other letters do not. */
  ignoreCase?: boolean;
}

/** @throws RangeError for an empty text, or one beyond 4,096 bytes. */
export function textPattern(text: string, options: TextPatternOptions = {}): BytePattern {
  const { encoding = 'utf-8', ignoreCase = false } = options;
  const values = encoding === 'utf-8' ? new TextEncoder().encode(text) : utf16Bytes(text);
  const masks = new Uint8Array(values.length).fill(0xff);
  const step = encoding === 'utf-8' ? 1 : 2;
  for (let k = 0; ignoreCase && k < values.length; k += step) {
    if (step === 2 && values[k + 1] !== 0) continue;
    const upper = (values[k] as number) & 0xdf;
    if (upper < 0x41 || upper > 0x5a) continue;
    values[k] = upper;
    masks[k] = 0xdf;
  }
  return checkBytes({ values, masks });
}

function utf16Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length * 2);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < text.length; i++) view.setUint16(i * 2, text.charCodeAt(i), true);
  return bytes;
}

/**
 * Makes a pattern from hex digits, two per byte, with or without spaces between bytes; `?` stands for any digit.
 * @throws RangeError for other characters, no bytes, more than 4,096 bytes, and wildcards alone.
 */
export function hexPattern(text: string): BytePattern {
  const pieces = text.split(/\s+/).filter((piece) => piece !== '');
  if (!pieces.every((piece) => /^([0-9a-f?]{2})+$/i.test(piece))) {
    throw new RangeError(`expected pairs of hex digits or ?, such as "de ad ?? ef", got "${text}"`);
  }
  const bytes = pieces.join('').match(/../g) ?? [];
  const values = Uint8Array.from(bytes, (byte) => Number.parseInt(byte.replaceAll('?', '0'), 16));
  const masks = Uint8Array.from(bytes, (byte) => Number.parseInt(byte.replace(/[^?]/g, 'f').replaceAll('?', '0'), 16));
  return checkBytes({ values, masks });
}

/** Converts a pattern of any kind to one of two. @throws TypeError, RangeError for an invalid pattern. */
export function toPattern(pattern: SearchPattern): BytePattern | RegExp {
  if (typeof pattern === 'string') return textPattern(pattern);
  if (pattern instanceof RegExp) return pattern;
  if (pattern instanceof Uint8Array) {
    return checkBytes({ values: pattern.slice(), masks: new Uint8Array(pattern.length).fill(0xff) });
  }
  const { values, masks } = pattern ?? {};
  if (values instanceof Uint8Array && masks instanceof Uint8Array) {
    if (masks.length !== values.length) {
      throw new RangeError(`expected a mask for each of ${values.length} bytes, got ${masks.length}`);
    }
    return checkBytes({ values: values.map((value, k) => value & (masks[k] as number)), masks: masks.slice() });
  }
  throw new TypeError(`expected a string, a Uint8Array, a RegExp or a BytePattern, got ${typeof pattern}`);
}

function checkBytes(pattern: BytePattern): BytePattern {
  const { length } = pattern.values;
  if (length === 0) throw new RangeError('expected a pattern of at least one byte, got an empty one');
  if (length > maxMatchBytes)
    throw new RangeError(`expected a pattern of at most ${maxMatchBytes} bytes, got ${length}`);
  if (pattern.masks.every((mask) => mask === 0)) {
    throw new RangeError('expected a pattern with at least one digit, got wildcards alone');
  }
  return pattern;
}

/** How common bytes are in memory, roughly: the commonest first. Zeros, ones, spaces, letters of English, x86 code. */
const common = [0x00, 0xff, 0x20, ...new TextEncoder().encode('etaoinsrlhdcu'), 0x48, 0x8b, 0x89, 0x0f, 0x01, 0x0a];

/** The positions of the two bytes of a pattern that are probably the rarest. They are tested first. */
export function chooseAnchors({ values, masks }: BytePattern): { first: number; second: number } {
  const costs = [...values].map((value, k) => {
    const rank = common.indexOf(value);
    const freeBits = 8 - bitCount(masks[k] as number);
    return (rank === -1 ? 0 : common.length - rank) + freeBits * common.length;
  });
  const cheapest = (without: number) =>
    costs.reduce((best, cost, k) => (k !== without && (best === -1 || cost < (costs[best] as number)) ? k : best), -1);
  const first = cheapest(-1);
  const second = values.length === 1 ? first : cheapest(first);
  return { first, second };
}

function bitCount(byte: number): number {
  return byte.toString(2).replaceAll('0', '').length;
}

/**
 * The bytes that every match of a regular expression begins with. Undefined if fewer than two are obvious without
 * parsing the whole expression.
 */
export function literalPrefix({ source, ignoreCase }: RegExp): BytePattern | undefined {
  if (source.includes('|')) return undefined;
  let text = '';
  for (let i = 0; i < source.length; ) {
    const { whole, char } = takeLiteral(source.slice(i, i + 4));
    if (char === '' || char > '\x7f') break;
    const next = source[i + whole.length];
    if (next !== undefined && '?*{'.includes(next)) break;
    text += char;
    if (next === '+') break;
    i += whole.length;
  }
  return text.length < 2 ? undefined : textPattern(text.slice(0, 64), { ignoreCase });
}

/**
 * The literal character that an expression begins with, in its source form and as a character. Both are empty if there
 * is none.
 */
function takeLiteral(source: string): { whole: string; char: string } {
  const byte = /^\\x([0-9a-f]{2})/i.exec(source);
  if (byte !== null) return { whole: byte[0], char: String.fromCharCode(Number.parseInt(byte[1] as string, 16)) };
  const whole = /^(\\[^\p{L}\p{N}]|[^\\^$.*+?()[\]{}|])/u.exec(source)?.[0] ?? '';
  return { whole, char: whole.slice(-1) };
}
