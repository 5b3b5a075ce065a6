/**
 * Finders: patterns that are prepared for a search in windows of content (`content-windows.ts`).
 *
 * The kernel finds bytes. The platform runs regular expressions over text made of the window's bytes, piece by piece.
 * If all matches of an expression begin with the same bytes, the kernel finds those first, and only the text around
 * them is made. The ends of pieces and windows must not affect the result. So a match depends only on the 4,096 bytes
 * before its beginning and the 4,096 bytes from there. An expression that would match more is run again on these bytes
 * alone.
 */
import type { Kernel } from '../../kernel/kernel.ts';
import { type BytePattern, chooseAnchors, literalPrefix, maxMatchBytes } from './pattern.ts';

/** A stretch of content in the arena. */
export interface Stretch {
  address: number;
  length: number;
}

/** A match, as a position in the stretch. */
export interface Found {
  at: number;
  length: number;
}

export interface Finder {
  /** The most bytes a match has. */
  readonly reach: number;
  /** Bytes before a match that may affect it. */
  readonly behind: number;
  /** Whether a match may consist of zeros alone, with zeros around it. */
  readonly matchesZeros: boolean;
  /**
   * The first match that begins at `from` or after it, and before `until`. The stretch must continue for `reach` bytes
   * after that, unless the content ends. It must begin `behind` bytes before `from`, unless the content begins there.
   */
  find(stretch: Stretch, from: number, until: number): Found | undefined;
}

/** Converts bytes to text, one character per byte, with the byte's number. */
export type ToText = (bytes: Uint8Array) => string;

export class BytesFinder implements Finder {
  readonly reach: number;
  readonly behind = 0;
  readonly matchesZeros: boolean;
  readonly #kernel: Kernel;
  readonly #pattern: number;
  readonly #first: number;
  readonly #second: number;

  /** Allocates space for the pattern in the kernel's arena. */
  constructor(kernel: Kernel, pattern: BytePattern) {
    const { values, masks } = pattern;
    this.reach = values.length;
    this.matchesZeros = values.every((value) => value === 0);
    this.#kernel = kernel;
    this.#pattern = kernel.allocate(2 * values.length);
    kernel.bytes.set(values, this.#pattern);
    kernel.bytes.set(masks, this.#pattern + values.length);
    ({ first: this.#first, second: this.#second } = chooseAnchors(pattern));
  }

  find({ address, length }: Stretch, from: number, until: number): Found | undefined {
    const end = Math.min(length, until - 1 + this.reach);
    if (end - from < this.reach) return undefined;
    const at = this.#kernel.find(address + from, end - from, this.#pattern, this.reach, this.#first, this.#second);
    return at === -1 ? undefined : { at: from + at, length: this.reach };
  }
}

/** Bytes converted to text at a time: if the worthwhile places are unknown, and if they are known. */
const pieceBytes = { all: 64 * 1024, chosen: 4 * 1024 };

interface Piece {
  stretch: Stretch | undefined;
  text: string;
  begin: number;
  from: number;
  until: number;
}

const noPiece: Piece = { stretch: undefined, text: '', begin: 0, from: 0, until: 0 };

export class RegexFinder implements Finder {
  readonly reach = maxMatchBytes;
  readonly behind = maxMatchBytes;
  readonly matchesZeros: boolean;
  readonly #kernel: Kernel;
  readonly #toText: ToText;
  readonly #regex: RegExp;
  /** The same expression, for a match at one position. */
  readonly #sticky: RegExp;
  readonly #prefix: BytesFinder | undefined;
  /** The latest piece: its text begins at `begin` in the stretch, and it reports matches in `from..until - 1`. */
  #piece = noPiece;

  constructor(kernel: Kernel, regex: RegExp, toText: ToText) {
    const flags = regex.flags.replace(/[gyd]/g, '');
    this.#kernel = kernel;
    this.#toText = toText;
    this.#regex = new RegExp(regex.source, `${flags}g`);
    this.#sticky = new RegExp(regex.source, `${flags}y`);
    const zeros = '\0'.repeat(this.behind + 2 * this.reach);
    const inZeros = this.#match(zeros, this.behind, this.behind + this.reach);
    this.matchesZeros = inZeros !== undefined;
    const prefix = literalPrefix(this.#regex);
    this.#prefix = prefix === undefined ? undefined : new BytesFinder(kernel, prefix);
  }

  find(stretch: Stretch, from: number, until: number): Found | undefined {
    for (let at = from; at < until; at = Math.min(until, this.#piece.until)) {
      if (this.#prefix !== undefined) {
        const candidate = this.#prefix.find(stretch, at, until);
        if (candidate === undefined) break;
        at = candidate.at;
      }
      const piece = this.#take(stretch, at);
      const found = this.#match(piece.text, at - piece.begin, Math.min(until, piece.until) - piece.begin);
      if (found !== undefined) return { at: piece.begin + found.at, length: found.length };
    }
    this.#piece = noPiece;
    return undefined;
  }

  /** A piece that reports matches at `at`. */
  #take(stretch: Stretch, at: number): Piece {
    const { stretch: same, from, until } = this.#piece;
    if (same === stretch && at >= from && at < until) return this.#piece;
    const begin = Math.max(0, at - this.behind);
    const next = Math.min(stretch.length, at + (this.#prefix === undefined ? pieceBytes.all : pieceBytes.chosen));
    const end = Math.min(stretch.length, next + this.reach);
    const bytes = this.#kernel.bytes.subarray(stretch.address + begin, stretch.address + end);
    this.#piece = { stretch, text: this.#toText(bytes), begin, from: at, until: next };
    return this.#piece;
  }

  /** The first match in a text with its beginning in `from..until - 1`. */
  #match(text: string, from: number, until: number): Found | undefined {
    const regex = this.#regex;
    for (let at = from; at < until; ) {
      regex.lastIndex = at;
      const match = regex.exec(text);
      if (match === null || match.index >= until) return undefined;
      const length = match[0].length > this.reach ? this.#matchWithin(text, match.index) : match[0].length;
      if (length > 0) return { at: match.index, length };
      at = match.index + 1;
    }
    return undefined;
  }

  /** The length of the match at a position, limited to the allowed bytes; 0 if there is none. */
  #matchWithin(text: string, at: number): number {
    const begin = Math.max(0, at - this.behind);
    this.#sticky.lastIndex = at - begin;
    return this.#sticky.exec(text.slice(begin, at + this.reach))?.[0].length ?? 0;
  }
}

/** The portable way from bytes to text, by way of UTF-16. For pieces of the finders here. */
export function widen(): ToText {
  const decoder = new TextDecoder('utf-16le');
  const units = new Uint16Array(pieceBytes.all + 2 * maxMatchBytes);
  // A leading U+FEFF cannot be: units are below 256.
  return (bytes) => {
    units.set(bytes);
    return decoder.decode(units.subarray(0, bytes.length));
  };
}
