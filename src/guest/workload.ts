/**
 * What the processors of a synthetic guest do: they write a working set round and round.
 *
 *     block   | 1 MiB, left alone | working set ............................. |
 *                                   vCPU 0 →→→→→→→→ | vCPU 1 →→→→→→→→→
 *
 * A write fills a whole page. What a page contains depends on the seed, the page, and the round in which it was written,
 * and on nothing else. So of several writes to a page that nobody saw, only the last one has to be made.
 */
import { EventLoopYield } from '../io/event-loop-yield.ts';
import type { GuestBlock } from '../vm/guest.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { GuestRam } from './guest-ram.ts';

/** What the pages are filled with. */
const workloadPatterns = ['counter', 'random', 'text', 'zero'] as const;
type WorkloadPattern = (typeof workloadPatterns)[number];

/** What the vCPUs of a synthetic guest write, and how fast. */
export interface WorkloadOptions {
  /** Bytes of pages per second that all vCPUs together write. */
  rate: number;
  /** Bytes of pages that are written round and round. */
  workingSet: number;
  /**
   * `counter`: the number of the round in the first 8 bytes (little-endian), then zeros. `random`: bytes that do not
   * compress. `text`: words. `zero`: zeros. Default `counter`.
   */
  pattern?: WorkloadPattern;
  /** Of `random` and `text`. Default 1. */
  seed?: number;
  /** How many vCPUs share the working set. Default 1. */
  vcpus?: number;
}

/** Where the working set begins in the block, in bytes. */
const workloadStart = 1 << 20;
/** Pages written at a time. */
const runPages = 64;
/** Bytes of text that pages are cut from. */
const textBytes = 64 << 10;

/** A vCPU, and how far it has come. */
interface Vcpu {
  /** Its pages in the block: `[first, end)`. */
  readonly first: number;
  readonly end: number;
  /** Pages written so far, in whole and in part. */
  written: number;
  due: number;
}

export class Workload {
  readonly options: Readonly<Required<WorkloadOptions>>;
  readonly #ram: GuestRam;
  readonly #block: GuestBlock;
  readonly #vcpus: readonly Vcpu[];
  readonly #run: Uint8Array;
  readonly #fill: (page: Uint8Array, number: number, round: number) => void;
  readonly #turns = new EventLoopYield();

  /**
   * The working set is in the largest block, or the first of several, which is not among those left alone.
   * @throws RangeError for options out of range, and a working set that does not fit
   */
  constructor(ram: GuestRam, options: WorkloadOptions, leftAlone: readonly RamBlock[] = []) {
    const { pattern = 'counter', seed = 1, vcpus = 1, rate, workingSet } = options;
    const isLeftAlone = ({ index }: RamBlock) => leftAlone.some((each) => each.index === index);
    const [block] = ram.blocks.filter((each) => !isLeftAlone(each)).sort((a, b) => b.usedLength - a.usedLength);
    if (block === undefined) throw new RangeError('expected a guest with RAM for a workload');
    const { pageSize, usedLength, idstr } = block;
    if (!(rate >= 0 && Number.isFinite(rate))) throw new RangeError(`expected bytes per second, got ${rate}`);
    if (!(Number.isInteger(vcpus) && vcpus >= 1)) throw new RangeError(`expected a number of vCPUs, got ${vcpus}`);
    if (!workloadPatterns.includes(pattern)) {
      throw new RangeError(`expected the pattern ${workloadPatterns.join(', ')}, got ${pattern}`);
    }
    const first = Math.min(workloadStart, usedLength - pageSize) / pageSize;
    const pages = Math.ceil(workingSet / pageSize);
    if (!(pages >= vcpus && first + pages <= pageCount(block))) {
      const room = usedLength - first * pageSize;
      throw new RangeError(
        `expected a working set of ${vcpus * pageSize} to ${room} bytes in "${idstr}", got ${workingSet}`,
      );
    }
    this.options = { pattern, seed, vcpus, rate, workingSet };
    this.#ram = ram;
    this.#block = block;
    this.#run = new Uint8Array(runPages * pageSize);
    this.#fill = makeFill(pattern, seed);
    this.#vcpus = Array.from({ length: vcpus }, (_, i) => ({
      first: first + Math.floor((i * pages) / vcpus),
      end: first + Math.floor(((i + 1) * pages) / vcpus),
      ...{ written: 0, due: 0 },
    }));
  }

  /** Pages that each vCPU has written so far. */
  get pagesWritten(): number[] {
    return this.#vcpus.map(({ written }) => written);
  }

  /**
   * Writes what the vCPUs write in `ms` milliseconds. `speed` returns the share of its rate that a vCPU has. `note` is
   * called for each run of pages after it was written.
   */
  async run(
    ms: number,
    speed: (vcpu: number) => number,
    note: (block: GuestBlock, first: number, end: number) => void,
  ): Promise<void> {
    const { rate, vcpus } = this.options;
    const pagesPerMs = rate / vcpus / this.#block.pageSize / 1000;
    for (const [i, vcpu] of this.#vcpus.entries()) {
      vcpu.due += pagesPerMs * ms * speed(i);
      await this.#write(vcpu, Math.floor(vcpu.due) - vcpu.written, note);
    }
  }

  /** Makes a vCPU write `count` pages. */
  async #write(vcpu: Vcpu, count: number, note: (block: GuestBlock, first: number, end: number) => void) {
    const block = this.#block;
    const { pageSize } = block;
    const pages = vcpu.end - vcpu.first;
    const last = vcpu.written + count;
    // Earlier rounds are overwritten by later ones.
    let write = Math.max(vcpu.written, last - pages);
    vcpu.written = last;
    while (write < last) {
      const round = Math.floor(write / pages) + 1;
      const page = vcpu.first + (write % pages);
      const run = Math.min(runPages, last - write, vcpu.end - page);
      for (let i = 0; i < run; i++) {
        this.#fill(this.#run.subarray(i * pageSize, (i + 1) * pageSize), page + i, round);
      }
      await this.#ram.write(block, page, this.#run.subarray(0, run * pageSize));
      note(block, page, page + run);
      write += run;
      await this.#turns.after(run * pageSize);
    }
  }
}

function makeFill(pattern: WorkloadPattern, seed: number): (page: Uint8Array, number: number, round: number) => void {
  if (pattern === 'zero') return (page) => page.fill(0);
  if (pattern === 'text') {
    const text = makeText(seed);
    return (page, number, round) => {
      const from = mix(seed, number, round) % (text.length - page.length);
      page.set(text.subarray(from, from + page.length));
    };
  }
  if (pattern === 'random') return (page, number, round) => fillRandom(page, mix(seed, number, round));
  return (page, _, round) => {
    page.fill(0);
    new DataView(page.buffer, page.byteOffset).setBigUint64(0, BigInt(round), true);
  };
}

/** One number, not 0, of three. */
function mix(seed: number, page: number, round: number): number {
  let state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(page, 0x85ebca6b) ^ Math.imul(round, 0xc2b2ae35)) | 0;
  state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
  state ^= state >>> 12;
  return state >>> 0 || 1;
}

/** Marsaglia's xorshift of 32 bits: fast, and nothing compresses it. */
function fillRandom(page: Uint8Array, start: number): void {
  const words = new Uint32Array(page.buffer, page.byteOffset, page.length / 4);
  let state = start;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
}

const words =
  'page block guest host dirty clean sync pass stream channel packet bitmap memory source target zero'.split(' ');

function makeText(seed: number): Uint8Array {
  const text = new Uint8Array(textBytes);
  const numbers = new Uint32Array(textBytes / 4);
  fillRandom(new Uint8Array(numbers.buffer), mix(seed, 0, 0));
  let at = 0;
  for (const number of numbers) {
    for (const character of `${words[number % words.length]} `) text[at++] = character.charCodeAt(0);
  }
  return text;
}
