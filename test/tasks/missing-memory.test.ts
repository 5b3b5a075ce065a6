/**
 * One rule for all tasks: none reports success for memory that it did not have. Each kind of incomplete file is a row; each task
 * that needs the content of RAM is a column. With `partial`, a task gives what the file has and lists the rest.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { appendTo } from '../../src/io/byte-source.ts';
import { NodeCodecs, open } from '../../src/node.ts';
import type { MigrationFile, OpenOptions } from '../../src/read/open.ts';
import type { MissingRam } from '../../src/store/missing-ram.ts';
import { openSavedVm } from '../../src/store/ram-content.ts';
import { convertToChanges } from '../../src/tasks/convert/changes.ts';
import { convertToMappedRam, convertToMultifd, convertToStream } from '../../src/tasks/convert/convert.ts';
import { diff } from '../../src/tasks/diff/diff.ts';
import { estimate } from '../../src/tasks/estimate/estimate.ts';
import { extractBlocks } from '../../src/tasks/extract/extract.ts';
import { openRange, readRam } from '../../src/tasks/extract/range.ts';
import { inspect } from '../../src/tasks/inspect/inspect.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import { countMatches, search } from '../../src/tasks/search/search.ts';
import { incompleteCodes } from '../../src/vm/migration-error.ts';
import { type Fixture, loadFixtures } from '../fixture-files.ts';
import { someOf } from '../limits.ts';
import {
  blockList,
  capabilities,
  configuration,
  EOF,
  EOS,
  end,
  filled,
  full,
  header,
  join,
  KIB4,
  normalPage,
  part,
  start,
  u64,
} from '../oracle/build.ts';
import { recordBoundaries, slowRead } from '../oracle/slow-reader.ts';
import { RecordingFile as MemoryFile } from '../support/recording-file.ts';

const fixture = (name: string) => loadFixtures().find((each) => each.name === name) as Fixture;
const makeScratch = () => new MemoryFile('scratch');
const codecs = new NodeCodecs();

/** A file with its parts. */
interface Input {
  bytes: Uint8Array;
  options?: OpenOptions<Uint8Array>;
}
const opened = ({ bytes, options = {} }: Input) => open(bytes, { codecs, ...options });

const plain = fixture('pc-plain-10.0');
const modern = fixture('pc-multifd-none-zero-multifd-10.0');
const old = fixture('pc-multifd-none-7.2');
const mapped = fixture('pc-mapped-ram-multifd-10.0');
const numberOf = (channel: Uint8Array) => channel[24] as number;
const without = ({ channels }: Fixture, number: number) => channels.filter((each) => numberOf(each) !== number);
/** The end of the last byte of page data, roughly: everything behind it is devices and description. */
const middle = ({ bytes }: Fixture) => Math.floor(bytes.length / 2);

const sharing = join(
  header,
  configuration('none', capabilities('x-ignore-shared')),
  start(7, 'ram', 4, blockList(['ram', KIB4, u64(0)], ['shared', KIB4, u64(0x1000_0000)]), EOS),
  part(7, normalPage(0, filled(1), 'ram'), EOS),
  end(7, EOS),
  EOF,
);

/** Incomplete files, and the evidence. */
const incomplete: Record<string, { input: Input; code: string }> = {
  'a multifd main stream alone': { input: { bytes: modern.bytes }, code: 'missing-channels' },
  'a main stream of QEMU 7.2 alone': { input: { bytes: old.bytes }, code: 'missing-channels' },
  'a set without its first channel': {
    input: { bytes: modern.bytes, options: { channels: without(modern, 0) } },
    code: 'missing-channels',
  },
  'a set without its last channel': {
    input: { bytes: modern.bytes, options: { channels: without(modern, modern.channels.length - 1) } },
    code: 'missing-channels',
  },
  'a set of QEMU 7.2 without its last channel': {
    input: { bytes: old.bytes, options: { channels: without(old, old.channels.length - 1) } },
    code: 'missing-channels',
  },
  'a channel that lacks its last SYNC': {
    input: {
      bytes: modern.bytes,
      options: { channels: modern.channels.map((each, i) => (i === 0 ? each.slice(0, 64) : each)) },
    },
    code: 'sync-missing',
  },
  'a channel that breaks off': {
    input: {
      bytes: modern.bytes,
      options: { channels: modern.channels.map((each) => each.slice(0, each.length / 2)) },
    },
    code: 'truncated',
  },
  'shared memory that was left out': { input: { bytes: sharing }, code: 'block-ignored' },
  'a stream that breaks off': { input: { bytes: plain.bytes.subarray(0, plain.bytes.length / 4) }, code: 'truncated' },
  'a mapped-ram file that breaks off': {
    input: { bytes: mapped.bytes.subarray(0, middle(mapped)) },
    code: 'truncated',
  },
};

beforeAll(async () => {
  const [base, now] = [await opened({ bytes: plain.bytes }), await opened({ bytes: fixture('pc-xbzrle-10.0').bytes })];
  const changes = new MemoryFile();
  await (await convertToChanges(now, base, changes, { makeScratch })).close();
  incomplete['a file of changes without its base'] = { input: { bytes: changes.content() }, code: 'changes-only' };
});

const names = [...Object.keys(incomplete), 'a file of changes without its base'];
const inputOf = (name: string) => incomplete[name] as { input: Input; code: string };

type Task = (file: MigrationFile, partial: boolean, note: (missing: MissingRam) => void) => Promise<unknown>;

/** Tasks that need the content of all RAM. `canBePartial`: they take what a file has. */
const tasks: Record<string, { run: Task; canBePartial: boolean }> = {
  extractBlocks: {
    canBePartial: true,
    run: (file, partial, noteMissing) =>
      extractBlocks(file, () => new MemoryFile(), undefined, { partial, noteMissing }),
  },
  openSavedVm: {
    canBePartial: true,
    run: async (file, partial, noteMissing) => {
      const { ram } = await openSavedVm(file, { makeScratch, partial, noteMissing });
      await ram.close();
    },
  },
  search: {
    canBePartial: true,
    run: async (file, partial, noteMissing) => {
      const found = search(file, 'no such text', { makeScratch, partial, noteMissing });
      for await (const match of found) expect.fail(`${match.offset}`);
    },
  },
  countMatches: {
    canBePartial: true,
    run: (file, partial, noteMissing) => countMatches(file, 'no such text', { makeScratch, partial, noteMissing }),
  },
  convertToStream: {
    canBePartial: true,
    run: async (file, partial, note) => {
      const output = new MemoryFile();
      const conversion = await convertToStream(file, appendTo(output), { makeScratch, partial });
      if (conversion.vm.missing !== undefined) note(conversion.vm.missing);
      await conversion.check(await open(output.content()));
      await conversion.close();
      expect((await verify(await open(output.content()))).verdict).toBe('incomplete');
    },
  },
  convertToMultifd: {
    canBePartial: true,
    run: async (file, partial, note) => {
      const [main, channel] = [new MemoryFile(), new MemoryFile()];
      const sinks = [appendTo(channel)];
      const conversion = await convertToMultifd(file, appendTo(main), sinks, { makeScratch, partial, compat: '10.0' });
      if (conversion.vm.missing !== undefined) note(conversion.vm.missing);
      await conversion.close();
      const set = await open(main.content(), { channels: [channel.content()] });
      expect((await verify(set)).verdict).toBe('incomplete');
    },
  },
  convertToMappedRam: {
    canBePartial: true,
    run: async (file, partial, note) => {
      const output = new MemoryFile();
      const conversion = await convertToMappedRam(file, output, { partial });
      if (conversion.vm.missing !== undefined) note(conversion.vm.missing);
      await conversion.check(await open(output.content()));
      await conversion.close();
      expect((await verify(await open(output.content()))).verdict).toBe('incomplete');
    },
  },
  diff: {
    canBePartial: true,
    run: async (file, partial, note) => {
      const { missing } = await diff(file, await open(plain.bytes), { makeScratch, partial });
      if (missing.old !== undefined) note(missing.old);
    },
  },
  convertToChanges: {
    canBePartial: false,
    run: async (file) => convertToChanges(file, await open(plain.bytes), new MemoryFile(), { makeScratch }),
  },
  estimate: { canBePartial: false, run: (file) => estimate(file, { makeScratch, codecs, clock: () => 0 } as never) },
};

describe.each(names)('%s', (name) => {
  it('is incomplete: verify and inspect say so', async () => {
    const { input, code } = inputOf(name);
    const { verdict, ok, findings } = await verify(await opened(input));
    expect([verdict, ok], JSON.stringify(findings)).toEqual(['incomplete', false]);
    expect(findings.map((finding) => finding.code)).toContain(code);
    const { inspection } = await inspect(await opened(input));
    expect(inspection.complete).toBe(false);
  });

  it.each(Object.keys(tasks))('is refused by %s', async (task) => {
    // Shared memory is not sent, so an estimate does not need it.
    if (task === 'estimate' && name === 'shared memory that was left out') return;
    const { input } = inputOf(name);
    const refusal = await (tasks[task] as (typeof tasks)[string])
      .run(await opened(input), false, () => {})
      .then(
        () => 'success',
        (error: { code: string }) => error.code,
      );
    expect(incompleteCodes, refusal).toContain(refusal);
  });

  const partial = Object.keys(tasks).filter((task) => tasks[task]?.canBePartial);
  it.each(partial)('is read by %s with `partial`, which says what is missing', async (task) => {
    const { input, code } = inputOf(name);
    const noted: MissingRam[] = [];
    await (tasks[task] as (typeof tasks)[string]).run(await opened(input), true, (missing) => noted.push(missing));
    expect(noted).toHaveLength(1);
    expect(noted[0]?.evidence.map((finding) => finding.code)).toContain(code);
    expect(noted[0]?.blocks.length).toBeGreaterThan(0);
  });

  it('is refused where a range is read, unless it may be partial', async () => {
    const { input } = inputOf(name);
    const { missing } = await openSavedVm(await opened(input), { makeScratch, partial: true });
    const [lacking] = missing?.blocks ?? [];
    const range = { block: lacking?.block ?? '', at: lacking?.ranges[0]?.offset ?? 0, length: 4096, makeScratch };
    await expect(readRam(await opened(input), range)).rejects.toMatchObject({ name: 'MigrationError' });
    const read = await openRange(await opened(input), { ...range, partial: true });
    expect(read.missing?.evidence.length).toBeGreaterThan(0);
    await read.close();
  });
});

describe('pages that were never sent', () => {
  const page = (number: number) => normalPage(number * KIB4, filled(number + 1), number === 0 ? 'pc.ram' : undefined);
  const list = start(7, 'ram', 4, blockList(['pc.ram', 16 * KIB4], ['mem0', 16 * KIB4]), EOS);
  const stream = (...devices: Uint8Array[]) =>
    join(header, configuration('pc'), list, part(7, page(0), page(2), EOS), end(7, EOS), ...devices, EOF);
  const hints = full(
    3,
    '0000:00:03.0/virtio-balloon',
    [5],
    [33],
    'virtio-balloon-device/free-page-report',
    [0, 0, 0, 1],
  );
  const virtioMem = full(4, '0000:00:04.0/virtio-mem', [1, 2, 3]);

  it.each([
    ['hinted at as free by a balloon', hints],
    ['of unplugged virtio-mem', virtioMem],
    ['for a reason that the file does not show', full(3, 'timer', [1])],
  ])('%s are a warning, and every task takes the file', async (_, device) => {
    const input = { bytes: stream(device) };
    const { verdict, findings } = await verify(await opened(input));
    expect(verdict).toBe('ok');
    expect(findings.map(({ code }) => code)).toContain('pages-absent');
    for (const { run } of [tasks.extractBlocks, tasks.openSavedVm, tasks.search] as { run: Task }[]) {
      await run(await opened(input), false, () => expect.fail('nothing is missing'));
    }
    expect((await extractBlocks(await opened(input), () => new MemoryFile()))[0]?.absentPages).toBe(14);
  });
});

/** A stream of one pass, so that the truth of each page is the final content. */
async function onePass(name: string): Promise<Uint8Array> {
  const output = new MemoryFile();
  await (await convertToStream(await open(fixture(name).bytes), appendTo(output), { makeScratch })).close();
  return output.content();
}

/** Extracts what a file has. Each page that is not listed as missing must equal the truth. Returns the missing pages. */
async function extractAndCompare(input: Input, truth: ReturnType<typeof slowRead>, what: string): Promise<number> {
  const images = new Map<string, MemoryFile>();
  let missing: MissingRam | undefined;
  await extractBlocks(
    await opened(input),
    ({ idstr }) => {
      images.set(idstr, new MemoryFile(idstr));
      return images.get(idstr);
    },
    undefined,
    { partial: true, noteMissing: (each) => (missing = each) },
  );
  let pages = 0;
  for (const { idstr, content } of truth.blocks) {
    const image = images.get(idstr)?.content();
    if (image === undefined) continue;
    expect(image.length).toBe(content.length);
    for (let at = 0; at < content.length; at += KIB4) {
      const isMissing = missing?.has({ idstr }, at / KIB4) === true;
      if (isMissing) pages++;
      const [got, expected] = [
        image.subarray(at, at + KIB4),
        isMissing ? new Uint8Array(KIB4) : content.subarray(at, at + KIB4),
      ];
      if (Buffer.compare(got, expected) !== 0) expect.fail(`${what}: page ${at / KIB4} of ${idstr} is wrong`);
    }
  }
  return pages;
}

describe('a stream with damage in one place', () => {
  it('yields every page except those of the damaged record', async () => {
    const bytes = await onePass('pc-plain-10.0');
    const truth = slowRead(bytes);
    const boundaries = recordBoundaries(bytes);
    const places = someOf(
      boundaries.slice(4, -40).filter((_, i) => i % 7 === 0),
      12,
      200,
    );
    for (const at of places) {
      for (const [byte, mask] of [
        [7, 0x44],
        [6, 0x0c],
        [2, 0x80],
      ] as const) {
        const damaged = bytes.slice();
        damaged[at + byte] = (damaged[at + byte] as number) ^ mask;
        const missing = await extractAndCompare({ bytes: damaged }, truth, `byte ${byte} at ${at}`);
        expect(missing, `byte ${byte} at ${at}`).toBeLessThan(40);
      }
    }
  });
});

describe('a file that breaks off', () => {
  it.each([
    ['a stream', () => onePass('pc-plain-10.0')],
    ['a mapped-ram file', async () => mapped.bytes],
  ])('%s: yields every page before the cut', async (_, make) => {
    const bytes = await make();
    const truth = slowRead(bytes);
    let last = Number.POSITIVE_INFINITY;
    for (const share of [0.25, 0.5, 0.9]) {
      const input = { bytes: bytes.subarray(0, bytes.length * share) };
      const missing = await extractAndCompare(input, truth, `cut at ${share}`);
      expect(missing).toBeLessThan(last);
      last = missing;
    }
  });
});

describe('a file that breaks off in its description', () => {
  it('is whole: a warning, and every task takes it', async () => {
    const { bytes } = plain;
    const input = { bytes: bytes.subarray(0, bytes.length - 30) };
    const { verdict, findings } = await verify(await opened(input));
    expect([verdict, findings.map(({ code }) => code)]).toEqual(['ok', ['bad-description', 'description-missing']]);
    const truth = slowRead(bytes);
    expect(await extractAndCompare(input, truth, 'cut')).toBe(0);
    await (tasks.openSavedVm as (typeof tasks)[string]).run(await opened(input), false, () => {});
  });
});
