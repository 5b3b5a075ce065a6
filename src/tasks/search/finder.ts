/**
 * Finders: patterns made ready to be looked for in windows of content (`content-windows.ts`).
 *
 * Bytes are found by the kernel. A regular expression is run by the platform, over text made of the window's bytes, a
 * piece at a time; if all its matches begin with the same bytes, the kernel finds those first and only text around them
 * is made. So that it does not matter where pieces and windows end, a match is judged by what lies in the 4,096 bytes
 * before its beginning and the 4,096 bytes from there: an expression that would match more is run again on these alone.
 */
import type { Kernel } from '../../kernel/kernel.ts';
import { type BytePattern, chooseAnchors, literalPrefix, maxMatchBytes } from './pattern.ts';

/** A stretch of content in the arena. */
export interface Stretch {
  address: number;
  length: number;
}

/** A match, as a place in the stretch. */
export interface Found {
  at: number;
  length: number;
}

export interface Finder {
  /** The most bytes a match has. */
  readonly reach: number;
  /** Bytes before a match that may decide about it. */
  readonly behind: number;
  /** Whether some match lies in nothing but zeros. */
  readonly matchesZeros: boolean;
  /**
   * The first match that begins at `from` or after it, and before `until`. The stretch must go on for `reach` bytes after
   * that, unless the content ends; and begin `behind` bytes before `from`, unless the content begins there.
   */
  find(stretch: Stretch, from: number, until: number): Found | undefined;
}

/** Makes a text of bytes, one character each: the one with the byte's number. */
export type ToText = (bytes: Uint8Array) => string;

export class BytesFinder implements Finder {
  readonly reach: number;
  readonly behind = 0;
  readonly matchesZeros: boolean;
  readonly #kernel: Kernel;
  readonly #pattern: number;
  readonly #first: number;
  readonly #second: number;

  /** Takes room for the pattern from the kernel's arena. */
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

/** Bytes made into text at a time: where it is not known which are worth it, and where it is. */
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
  /** The same, for a match at one place. */
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

  /** The first match in a text that begins in `from..until - 1`. */
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

  /** How long the match at a place is that sees no more than it should; 0 if there is none. */
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
