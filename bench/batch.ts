/** A batch of page pairs in a kernel's arena, with the tables and buffers that all jobs need. */
import type { Kernel } from '../src/kernel/index.ts';
import { PAGE, type Random, seeded } from './patterns.ts';

export class Batch {
  readonly kernel: Kernel;
  readonly count: number;
  readonly old: number;
  readonly next: number;
  readonly out: number;
  readonly olds: number;
  readonly news: number;
  readonly results: number;
  readonly sources: number;
  readonly lengths: number;
  readonly bitmap: number;
  readonly words: number;

  constructor(kernel: Kernel, count: number) {
    this.kernel = kernel;
    this.count = count;
    this.old = kernel.allocate(count * PAGE, 4096);
    this.next = kernel.allocate(count * PAGE, 4096);
    this.out = kernel.allocate(count * PAGE + kernel.xbzrleEncodeSlack);
    this.olds = kernel.allocate(count * 4);
    this.news = kernel.allocate(count * 4);
    this.results = kernel.allocate(count * 4);
    this.sources = kernel.allocate(count * 4);
    this.lengths = kernel.allocate(count * 4);
    this.bitmap = kernel.allocate(Math.ceil(count / 8));
    this.words = kernel.allocate(count * 4);
    for (let i = 0; i < count; i++) {
      kernel.u32(this.olds, count)[i] = this.old + i * PAGE;
      kernel.u32(this.news, count)[i] = this.next + i * PAGE;
    }
  }

  get bytes(): number {
    return this.count * PAGE;
  }

  view(at: number): Uint8Array<ArrayBuffer> {
    return this.kernel.bytes.subarray(at, at + this.bytes);
  }

  /** Fills the old pages with random bytes, or zeros if `isZero`; the new pages are copies with `change` applied. */
  fill(change: (page: Uint8Array, index: number, random: Random) => void, isZero = (_: number) => false): void {
    const random = seeded(12345);
    for (let i = 0; i < this.count; i++) {
      const old = this.kernel.bytes.subarray(this.old + i * PAGE, this.old + (i + 1) * PAGE);
      const next = this.kernel.bytes.subarray(this.next + i * PAGE, this.next + (i + 1) * PAGE);
      if (isZero(i)) old.fill(0);
      else for (let at = 0; at < PAGE; at++) old[at] = random(256);
      next.set(old);
      change(next, i, random);
    }
  }

  /** Encodes the batch and lists the encodings in `sources` and `lengths`. */
  encode(): void {
    const { kernel, count } = this;
    kernel.xbzrleEncodeBatch(this.olds, this.news, count, PAGE, PAGE, this.out, this.results);
    let at = this.out;
    for (let i = 0; i < count; i++) {
      const length = Math.max(0, kernel.i32(this.results, count)[i]!);
      kernel.u32(this.sources, count)[i] = at;
      kernel.u32(this.lengths, count)[i] = length;
      at += length;
    }
  }

  get scanArgs(): number[] {
    return [this.next, PAGE, this.count, this.bitmap];
  }
  get compareArgs(): number[] {
    return [this.old, this.next, PAGE, this.count, this.bitmap];
  }
  get encodeArgs(): number[] {
    return [this.olds, this.news, this.count, PAGE, PAGE, this.out, this.results];
  }
  get decodeArgs(): number[] {
    return [this.sources, this.lengths, this.olds, this.count, PAGE, this.results];
  }
  get wordArgs(): number[] {
    return [this.next, PAGE, this.count, this.words];
  }
}
