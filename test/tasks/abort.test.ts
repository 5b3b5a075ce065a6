/**
 * Everything that takes long ends when a signal is aborted: promptly, with the signal's reason, and without output that
 * looks complete.
 */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  appendTo,
  type ByteSource,
  type ByteStore,
  check,
  convertToChanges,
  convertToMappedRam,
  convertToMultifd,
  convertToStream,
  countMatches,
  diff,
  diffRam,
  encodeFlow,
  estimate,
  extractBlocks,
  extractElf,
  extractPhysical,
  inspect,
  MemoryFile,
  measureComposition,
  mergeToMappedRam,
  mergeToStream,
  open,
  openHttp,
  openMerged,
  openPhysical,
  openRamContent,
  openRange,
  openSavedVm,
  PortableCodecs,
  RawRam,
  readDevices,
  readFacts,
  readRam,
  readTarget,
  search,
  stoppedGuest,
  verify,
  writeGuest,
  writeMappedRam,
  writeMultifd,
  writerArenaBytes,
  writeStream,
} from '../../src/index.ts';
import type { MigrationFile } from '../../src/read/open.ts';
import { fixturePath } from '../fixture-files.ts';

const bytesOf = (name: string) => new Uint8Array(readFileSync(fixturePath(name)));
const xbzrle = bytesOf('pc-xbzrle-10.0.bin');
const plain = bytesOf('pc-plain-10.0.bin');

/** A source of small reads. The read number `stallAt` never ends; it aborts the signal instead. */
class StallingSource implements ByteSource {
  readonly name = 'stalling';
  readonly size: number;
  reads = 0;
  stallAt = Number.POSITIVE_INFINITY;
  isClosed = false;
  readonly #bytes: Uint8Array;
  readonly #abort: () => void;

  constructor(bytes: Uint8Array, abort: () => void) {
    this.#bytes = bytes;
    this.#abort = abort;
    this.size = bytes.length;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    this.reads++;
    if (this.reads >= this.stallAt) {
      setTimeout(this.#abort);
      return new Promise(() => {});
    }
    const piece = this.#bytes.subarray(position, position + Math.min(target.length, 64 << 10));
    target.set(piece);
    return piece.length;
  }

  async close(): Promise<void> {
    this.isClosed = true;
  }
}

interface Trial {
  file: MigrationFile;
  signal: AbortSignal;
  makeScratch: () => ByteStore;
  /** Makes an output. It must not look complete if the work was aborted. */
  output: () => MemoryFile;
}

let changes: MemoryFile;
beforeAll(async () => {
  changes = new MemoryFile('changes');
  const makeScratch = () => new MemoryFile('scratch');
  await convertToChanges(await open(xbzrle), await open(plain), changes, { makeScratch });
});

const main = async ({ output, ...rest }: Trial, write: (main: MemoryFile, trial: Omit<Trial, 'output'>) => unknown) =>
  write(output(), rest);

const longWork: [string, Uint8Array, (trial: Trial) => unknown][] = [
  ['inspect', xbzrle, ({ file, signal }) => inspect(file, { signal })],
  ['verify', xbzrle, ({ file, signal }) => verify(file, { signal })],
  ['readDevices', xbzrle, ({ file, signal }) => readDevices(file, { signal })],
  ['readFacts', xbzrle, ({ file, signal }) => readFacts(file, { signal })],
  ['readTarget', xbzrle, ({ file, signal }) => readTarget(file, 'target', { signal })],
  ['check', xbzrle, async ({ file, signal }) => check(file, await readTarget(await open(xbzrle)), { signal })],
  ['extractBlocks', xbzrle, ({ file, signal, output }) => extractBlocks(file, () => output(), undefined, { signal })],
  ['openRamContent, settled', xbzrle, ({ file, ...rest }) => openRamContent(file, rest)],
  ['openRamContent, indexed', plain, ({ file, ...rest }) => openRamContent(file, rest)],
  ['openSavedVm', xbzrle, ({ file, ...rest }) => openSavedVm(file, { ...rest, devices: true })],
  ['openRange', xbzrle, ({ file, ...rest }) => openRange(file, rest)],
  ['readRam', plain, ({ file, ...rest }) => readRam(file, rest)],
  ['countMatches', plain, ({ file, ...rest }) => countMatches(file, 'ferry', rest)],
  [
    'search',
    plain,
    async ({ file, ...rest }) => {
      for await (const match of search(file, 'no such text', rest)) expect(match).toBeUndefined();
    },
  ],
  ['openPhysical', plain, ({ file, ...rest }) => openPhysical(file, rest)],
  ['extractPhysical', plain, (trial) => main(trial, (out, { file, ...rest }) => extractPhysical(file, out, rest))],
  ['extractElf', plain, (trial) => main(trial, (out, { file, ...rest }) => extractElf(file, out, rest))],
  ['diff, the earlier one', plain, async ({ file, ...rest }) => diff(file, await open(xbzrle), rest)],
  ['diff, the later one', plain, async ({ file, ...rest }) => diff(await open(xbzrle), file, rest)],
  [
    'estimate',
    plain,
    ({ file, ...rest }) =>
      estimate(file, {
        ...rest,
        codecs: new PortableCodecs(),
        clock: () => performance.now(),
        levels: [{ format: 'zlib', level: 1 }],
      }),
  ],
  [
    'convertToStream',
    plain,
    (trial) => main(trial, (out, { file, ...rest }) => convertToStream(file, appendTo(out), rest)),
  ],
  [
    'convertToStream with a base',
    plain,
    (trial) =>
      main(trial, async (out, { file, ...rest }) =>
        convertToStream(await open(plain), appendTo(out), { ...rest, base: file }),
      ),
  ],
  [
    'convertToMultifd',
    plain,
    (trial) =>
      main(trial, (out, { file, ...rest }) =>
        convertToMultifd(file, appendTo(out), [appendTo(new MemoryFile())], rest),
      ),
  ],
  [
    'convertToMappedRam',
    xbzrle,
    (trial) => main(trial, (out, { file, signal }) => convertToMappedRam(file, out, { signal })),
  ],
  [
    'convertToChanges',
    xbzrle,
    (trial) => main(trial, async (out, { file, ...rest }) => convertToChanges(file, await open(plain), out, rest)),
  ],
  ['openMerged', plain, async ({ file, ...rest }) => openMerged(file, await open(changes), rest)],
  [
    'mergeToStream',
    plain,
    (trial) =>
      main(trial, async (out, { file, ...rest }) => mergeToStream(file, await open(changes), appendTo(out), rest)),
  ],
  [
    'mergeToMappedRam',
    plain,
    (trial) => main(trial, async (out, { file, ...rest }) => mergeToMappedRam(file, await open(changes), out, rest)),
  ],
  ['encodeFlow', plain, (trial) => main(trial, (out, { file, signal }) => encodeFlow(file, appendTo(out), { signal }))],
];

describe('a signal ends', () => {
  it.each(longWork)('%s', async (_, bytes, work) => {
    /** Runs the work. The n-th read after opening stalls. */
    const run = async (stallAt?: number) => {
      const ending = new AbortController();
      const reason = new Error('enough');
      const source = new StallingSource(bytes, () => ending.abort(reason));
      const file = await open(source, { spareBytes: writerArenaBytes });
      const scratches: { isClosed: boolean }[] = [];
      const outputs: MemoryFile[] = [];
      source.reads = 0;
      source.stallAt = stallAt ?? Number.POSITIVE_INFINITY;
      const makeScratch = () => {
        const state = { isClosed: false };
        scratches.push(state);
        const scratch = new MemoryFile('scratch');
        return Object.assign(scratch, {
          async close() {
            state.isClosed = true;
          },
        });
      };
      const output = () => {
        const made = new MemoryFile('output');
        outputs.push(made);
        return made;
      };
      const failure = await Promise.resolve(work({ file, signal: ending.signal, makeScratch, output })).then(
        () => undefined,
        (error: unknown) => error,
      );
      return { reason, failure, source, scratches, outputs };
    };
    const { failure, source } = await run();
    expect(failure).toBeUndefined();
    expect(source.reads).toBeGreaterThan(2);
    for (const stallAt of [1, Math.ceil(source.reads / 4), Math.ceil(source.reads / 2)]) {
      const ended = await run(stallAt);
      expect(ended.failure, `read ${stallAt} of ${source.reads}`).toBe(ended.reason);
      expect(ended.scratches.every(({ isClosed }) => isClosed)).toBe(true);
      for (const output of ended.outputs) {
        const isWhole = output.size > 0 && (await looksWhole(output));
        expect(isWhole).toBe(false);
      }
    }
  });

  it('work before it starts', async () => {
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    for (const [name, bytes, work] of longWork) {
      const output = () => new MemoryFile();
      const makeScratch = () => new MemoryFile();
      const file = await open(bytes, { spareBytes: writerArenaBytes });
      await expect(Promise.resolve(work({ file, signal, makeScratch, output })), name).rejects.toBe(reason);
    }
  });

  it('opening, and closes the source', async () => {
    const ending = new AbortController();
    const reason = new Error('enough');
    const source = new StallingSource(plain, () => ending.abort(reason));
    source.stallAt = 1;
    await expect(open(source, { signal: ending.signal })).rejects.toBe(reason);
    expect(source.isClosed).toBe(true);
  });

  it('opening a URL that does not answer', async () => {
    const reason = new Error('enough');
    const options = { fetch: () => new Promise<never>(() => {}), signal: AbortSignal.timeout(10) };
    await expect(openHttp('http://127.0.0.1/guest.migration', options)).rejects.toHaveProperty('name', 'TimeoutError');
    const signal = AbortSignal.abort(reason);
    await expect(openHttp('http://127.0.0.1/guest.migration', { ...options, signal })).rejects.toBe(reason);
  });

  it('the check of a conversion', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    const output = new MemoryFile('output');
    const conversion = await convertToStream(await open(plain), appendTo(output), {
      makeScratch: () => new MemoryFile(),
    });
    await expect(conversion.check(await open(output), { signal })).rejects.toBe(signal.reason);
    expect((await conversion.check(await open(output))).ok).toBe(true);
    await conversion.close();
  });

  it('only the work that got it, and the file can be read again', async () => {
    const ending = new AbortController();
    const source = new StallingSource(plain, () => ending.abort());
    const file = await open(source);
    ending.abort();
    await expect(verify(file, { signal: ending.signal })).rejects.toBe(ending.signal.reason);
    expect((await verify(file, { signal: new AbortController().signal })).ok).toBe(true);
  });
});

describe('a signal ends a writer', () => {
  const ram = () => new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', new Uint8Array(8 << 20).fill(7)) }]);
  const vm = () => ({ configuration: { machine: 'none', capabilities: [] }, ram: ram() });

  it.each<[string, (out: MemoryFile, signal: AbortSignal) => Promise<unknown>]>([
    ['writeStream', (out, signal) => writeStream(vm(), stalling(out), { signal })],
    ['writeMultifd', (out, signal) => writeMultifd(vm(), appendTo(out), [stalling(new MemoryFile())], { signal })],
    ['writeGuest', (out, signal) => writeGuest(stoppedGuest(vm()), stalling(out), { signal })],
  ])('whose sink takes nothing more: %s', async (_, write) => {
    const ending = new AbortController();
    abort = () => ending.abort(new Error('enough'));
    const output = new MemoryFile('output');
    await expect(write(output, ending.signal)).rejects.toThrow('enough');
    expect(output.size > 0 && (await looksWhole(output))).toBe(false);
  });

  it.each<[string, (content: RawRam, signal: AbortSignal) => Promise<unknown>]>([
    ['writeMappedRam', (content, signal) => writeMappedRam({ ...vm(), ram: content }, new MemoryFile(), { signal })],
    ['measureComposition', (content, signal) => measureComposition(content, { signal })],
    ['diffRam', (content, signal) => diffRam(content, ram(), { signal })],
  ])('or reader of content: %s', async (_, work) => {
    const ending = new AbortController();
    const source = new StallingSource(new Uint8Array(8 << 20).fill(7), () => ending.abort(new Error('enough')));
    source.stallAt = 3;
    await expect(work(new RawRam([{ idstr: 'ram', source }]), ending.signal)).rejects.toThrow('enough');
  });

  let abort = () => {};
  /** A sink whose second write never ends. */
  function stalling(store: MemoryFile) {
    const sink = appendTo(store);
    let writes = 0;
    return {
      write(bytes: Uint8Array) {
        if (++writes < 2) return sink.write(bytes);
        setTimeout(abort);
        return new Promise<void>(() => {});
      },
    };
  }
});

/** Whether a reader accepts a file as complete. */
async function looksWhole(output: MemoryFile): Promise<boolean> {
  const file = await open(output).catch(() => undefined);
  return file !== undefined && (await verify(file)).ok;
}
