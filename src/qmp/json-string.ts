/** What a string of JSON means: its escapes, and UTF-8, with the errors that QEMU gives. */

const backslash = 0x5c;
const simple: ReadonlyMap<number, string> = new Map(
  Object.entries({ '"': '"', "'": "'", '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }).map(
    ([letter, meaning]) => [letter.charCodeAt(0), meaning],
  ),
);
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of a string, whose bytes are those between its quotes. */
export function unescapeString(bytes: Uint8Array): { value: string } | { error: string } {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const next = bytes.indexOf(backslash, at);
    const end = next < 0 ? bytes.length : next;
    const plain = decode(bytes.subarray(at, end));
    if (plain === undefined) return { error: 'invalid UTF-8 sequence in string' };
    text += plain;
    if (next < 0) break;
    const letter = bytes[end + 1] as number;
    if (letter === 0x75) {
      const unicode = readUnicode(bytes, end);
      if (unicode === undefined) return { error: notUnicode(bytes, end) };
      text += unicode.text;
      at = unicode.end;
      continue;
    }
    const meaning = simple.get(letter);
    if (meaning === undefined) return { error: 'invalid escape sequence in string' };
    text += meaning;
    at = end + 2;
  }
  return { value: text };
}

/** UTF-8 without surrogates and non-characters. A NUL may be two bytes. */
function decode(bytes: Uint8Array): string | undefined {
  const parts: string[] = [];
  for (let at = 0; ; ) {
    const nul = findLongNul(bytes, at);
    const part = decodePlain(bytes.subarray(at, nul < 0 ? bytes.length : nul));
    if (part === undefined) return undefined;
    parts.push(part);
    if (nul < 0) return parts.join('\0');
    at = nul + 2;
  }
}

function decodePlain(bytes: Uint8Array): string | undefined {
  try {
    const text = decoder.decode(bytes);
    return hasNonCharacter(text) ? undefined : text;
  } catch {
    return undefined;
  }
}

function findLongNul(bytes: Uint8Array, from: number): number {
  for (let at = bytes.indexOf(0xc0, from); at >= 0; at = bytes.indexOf(0xc0, at + 1)) {
    if (bytes[at + 1] === 0x80) return at;
  }
  return -1;
}

const isNonCharacter = (point: number) => (point & 0xfffe) === 0xfffe || (point >= 0xfdd0 && point <= 0xfdef);

function hasNonCharacter(text: string): boolean {
  if (
    !/[\ufdd0-\ufdef\ufffe\uffff]|[\ud83f\ud87f\ud8bf\ud8ff\ud93f\ud97f\ud9bf\ud9ff\uda3f\uda7f\udabf\udaff\udb3f\udb7f\udbbf\udbff]/.test(
      text,
    )
  ) {
    return false;
  }
  for (const character of text) if (isNonCharacter(character.codePointAt(0) as number)) return true;
  return false;
}

/** What `\uXXXX` at `at` means, or two of them for one character. */
function readUnicode(bytes: Uint8Array, at: number): { text: string; end: number } | undefined {
  const first = hexAt(bytes, at);
  if (first === undefined) return undefined;
  if (first >= 0xd800 && first <= 0xdbff) {
    const second = bytes[at + 6] === backslash && bytes[at + 7] === 0x75 ? hexAt(bytes, at + 6) : undefined;
    if (second === undefined || second < 0xdc00 || second > 0xdfff) return undefined;
    const text = String.fromCharCode(first, second);
    return isNonCharacter(text.codePointAt(0) as number) ? undefined : { text, end: at + 12 };
  }
  if ((first >= 0xdc00 && first <= 0xdfff) || isNonCharacter(first)) return undefined;
  return { text: String.fromCharCode(first), end: at + 6 };
}

function hexAt(bytes: Uint8Array, at: number): number | undefined {
  const text = String.fromCharCode(...bytes.subarray(at + 2, at + 6));
  return /^[0-9a-fA-F]{4}$/.test(text) ? Number.parseInt(text, 16) : undefined;
}

/** QEMU shows six bytes, or up to the closing quote. */
function notUnicode(bytes: Uint8Array, at: number): string {
  const shown = new TextDecoder().decode(bytes.subarray(at, at + 6));
  return `${bytes.length - at < 6 ? `${shown}"` : shown} is not a valid Unicode character`;
}
