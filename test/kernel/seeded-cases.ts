/**
 * Seeded cases for all kernels at once: an old page, a new one, and the oracle's results.
 *
 * Every buffer is between poisoned bytes, at an unaligned address. A case depends only on its number, so the number is
 * enough to repeat a failure.
 */
import type { Kernel } from '../../src/kernel/index.ts';
import { Guarded, seeded } from './arena.ts';
import { comparePages, countBits, crc32, pageHash, uleb, xbzrleDecode, xbzrleEncode, zeroScan } from './oracle.ts';

type Random = ReturnType<typeof seeded>;

const noise = seeded(1).bytes(65536);

/** The pages of one case, mostly of 1 KiB, which leaves time for many cases. */
function somePages(random: Random): { old: Uint8Array; next: Uint8Array } {
  const size = random.below(16) > 0 ? 1024 : [1152, 2048, 4096, 8192, 16384][random.below(5)]!;
  const from = random.below(noise.length - size);
  const old = random.below(4) === 0 ? new Uint8Array(size) : noise.slice(from, from + size);
  const next = old.slice();
  const flip = (start: number, end: number) => {
    for (let at = start; at < Math.min(end, size); at++) next[at]! ^= 1 + ((at * 7) % 255);
  };
  switch (random.below(8)) {
    case 0: // nothing, or a single byte
      if (random.below(2) === 0) flip(random.below(size), 0);
      else next[random.below(size)]! ^= 1 << random.below(8);
      break;
    case 1: // some short runs
      for (let runs = random.below(12); runs > 0; runs--) {
        const at = random.below(size);
        flip(at, at + 1 + random.below(24));
      }
      break;
    case 2: // runs and gaps of all lengths up to one drawn for the page
    case 3: {
      const longest = 1 + random.below(random.below(2) === 0 ? 6 : 300);
      const gap = 1 + random.below(random.below(2) === 0 ? 4 : 200);
      for (let at = random.below(8); at < size; at += 1 + random.below(gap)) {
        const end = at + 1 + random.below(longest);
        flip(at, end);
        at = end;
      }
      break;
    }
    case 4: // all but a few bytes at either end: around the limit
      flip(random.below(8), size - random.below(8));
      break;
    case 5: // all but some bytes: around the limit, with more runs
      flip(0, size);
      for (let equal = 1 + random.below(8); equal > 0; equal--) {
        const at = random.below(size);
        next.set(old.subarray(at, at + 1 + random.below(8)), at);
      }
      break;
    case 6: // one run between two edges of blocks, or nearly
      flip(64 * random.below(size / 64) + random.below(3) - 1, 64 * random.below(size / 64 + 1) + random.below(3) - 1);
      break;
    case 7: // alternating bytes, of a part of the page
      for (let at = random.below(size), end = at + random.below(size); at < Math.min(end, size); at += 2)
        flip(at, at + 1);
  }
  return { old, next };
}

/** The encoder's output, or bytes that it would never write. */
function someEncoding(random: Random, encoded: Uint8Array): Uint8Array {
  if (random.below(3) > 0) return encoded;
  if (random.below(4) === 0) {
    return Uint8Array.from([...uleb(random.below(3), true), ...uleb(1 + random.below(9), true), ...random.bytes(9)]);
  }
  const damaged = encoded.slice(0, random.below(2) === 0 ? encoded.length : random.below(encoded.length + 1));
  for (let times = random.below(4); times > 0 && damaged.length > 0; times--) {
    damaged[random.below(random.below(2) === 0 ? Math.min(6, damaged.length) : damaged.length)] = random.below(256);
  }
  return damaged;
}

const isSame = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, i) => byte === b[i]);

/** The buffers of one kernel, and the case run in them. */
export class Bench {
  readonly #kernel: Kernel;
  readonly #old: Guarded;
  readonly #next: Guarded;
  readonly #out: Guarded;
  readonly #small: Guarded;
  readonly #outRoom: Uint8Array;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#old = new Guarded(kernel, 65536);
    this.#next = new Guarded(kernel, 65536);
    this.#out = new Guarded(kernel, 65536 + kernel.xbzrleEncodeSlack);
    this.#small = new Guarded(kernel, 64);
    this.#outRoom = new Uint8Array(65536 + kernel.xbzrleEncodeSlack);
  }

  /** Throws unless this kernel agrees with the oracle about the case. */
  check(answers: Answers): void {
    const { old, next, limit, encoding, shift } = answers;
    const kernel = this.#kernel;
    const size = old.length;
    const a = this.#old.place(old, shift);
    const b = this.#next.place(next, (shift * 5) & 63);
    const out = this.#out.place(this.#outRoom.subarray(0, limit + kernel.xbzrleEncodeSlack), (shift * 3) & 63);
    const small = this.#small.place(new Uint8Array(4).fill(0xff), (shift & 15) * 4);

    const length = kernel.xbzrleEncode(a, b, size, out, limit);
    this.#expect('the result of encoding', length, answers.encoded?.length ?? kernel.xbzrleOverflow);
    this.#expectSame('the encoding', kernel.bytes.subarray(out, out + Math.max(0, length)), answers.encoded);

    this.#expect('pages that differ', kernel.comparePages(a, b, size, 1, small), answers.differing);
    this.#expect('the bitmap of differences', kernel.bytes[small]!, answers.differing);
    this.#expect('zero pages', kernel.zeroScan(a, size, 1, small), answers.zeroes);
    this.#expect('the bitmap of zero pages', kernel.bytes[small]!, answers.zeroes);
    kernel.hashPages(b, size, 1, small);
    this.#expect('the hash', kernel.u32(small, 1)[0]!, answers.hash);
    kernel.crc32Pages(b, size, 1, small);
    this.#expect('the CRC', kernel.u32(small, 1)[0]!, answers.crc);
    this.#expect('the set bits', kernel.countBits(b, answers.bitmapBytes), answers.bits);
    this.#expectSame('the old page', this.#old.content, old);
    this.#expectSame('the new page', this.#next.content, next);
    this.#expectGuards();

    const source = this.#out.place(encoding, (shift * 7) & 63);
    const checked = kernel.xbzrleCheck(source, encoding.length, size);
    const end = kernel.xbzrleDecode(source, encoding.length, a, size);
    this.#expect('the check', checked, end);
    const { decoded } = answers;
    if (typeof decoded === 'string') {
      this.#expect('the fault', end, kernel.xbzrleCode[decoded]);
    } else {
      this.#expect('the end of the last literal', end, decoded.end);
      this.#expectSame('the decoded page', this.#old.content, decoded.page);
    }
    this.#expectSame('the source', this.#out.content, encoding);
    this.#expectGuards();
  }

  #expect(what: string, got: number, wanted: number): void {
    if (got !== wanted) throw new Error(`${what} (${this.#kernel.variant}): expected ${wanted}, got ${got}`);
  }

  #expectSame(what: string, got: Uint8Array, wanted: Uint8Array | undefined): void {
    if (wanted !== undefined && !isSame(got, wanted)) throw new Error(`${what} (${this.#kernel.variant}) is wrong`);
  }

  #expectGuards(): void {
    for (const each of [this.#old, this.#next, this.#out, this.#small]) {
      if (!each.isUntouchedAround) throw new Error(`bytes outside a buffer were written (${this.#kernel.variant})`);
    }
  }
}

export interface Answers extends ReturnType<typeof somePages> {
  limit: number;
  encoded: Uint8Array | undefined;
  differing: number;
  zeroes: number;
  hash: number;
  crc: number;
  bitmapBytes: number;
  bits: number;
  /** Bytes to decode onto the old page, and the result. */
  encoding: Uint8Array;
  decoded: ReturnType<typeof xbzrleDecode>;
  shift: number;
}

/** The oracle's answers for case `n`. */
export function answersOf(n: number): Answers {
  const random = seeded(Math.imul(n + 1, 0x9e3779b1));
  const { old, next } = somePages(random);
  // The page size is QEMU's limit. Some cases use another one.
  const limit = random.below(4) > 0 ? old.length : random.below(2) === 0 ? random.below(24) : random.below(old.length);
  const encoded = xbzrleEncode(old, next, limit);
  const whole = encoded ?? xbzrleEncode(old, next, old.length * 2)!;
  const encoding = someEncoding(random, whole);
  const bitmapBytes = random.below(200);
  return {
    old,
    next,
    limit,
    encoded,
    differing: comparePages([old], [next]).differing,
    zeroes: zeroScan([old]).zeroes,
    hash: Number(pageHash(next) & 0xffffffffn),
    crc: crc32(next),
    bitmapBytes,
    bits: countBits(next.subarray(0, bitmapBytes)),
    encoding,
    decoded: xbzrleDecode(encoding, old),
    shift: random.below(64),
  };
}
