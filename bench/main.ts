/**
 * `npm run bench`: compares the kernels with C and JavaScript, in one process, over the same memory. Prints a table;
 * `-- --json FILE` also writes its rows. Reports results and has no pass or fail.
 */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { loadKernel } from '../src/kernel/index.ts';
import { baselines, nativeResult, nativeWay } from './baseline.ts';
import { Batch } from './batch.ts';
import { compareWays, type Row, summarize, timed, type Way } from './measure.ts';
import { changeMixed, PAGE, patterns } from './patterns.ts';
import * as plain from './plain-js.ts';
import { profile } from './profile.ts';
import { printTable } from './table.ts';
import { measureWorkers } from './workers.ts';

const { values } = parseArgs({
  options: { json: { type: 'string' }, rounds: { type: 'string', default: '31' }, only: { type: 'string' } },
});
const rounds = Number(values.rounds);
const MiB = 2 ** 20;
const HOT_PAGES = 128;
const RAM_BYTES = 768 * MiB;

const all: Row[] = [];

function show(title: string, rows: Row[]): void {
  all.push(...rows);
  printTable(title, rows);
}

const isWanted = (part: string) => values.only === undefined || part.includes(values.only);

function expectEqual(what: string, ours: number, theirs: number): void {
  if (ours !== theirs) throw new Error(`${what}: ours gives ${ours}, the baseline ${theirs}: nothing to compare`);
}

const simd = await loadKernel({ arenaBytes: 8 * MiB, variant: 'simd' });
const scalar = await loadKernel({ arenaBytes: 8 * MiB, variant: 'scalar' });
const batch = new Batch(simd, HOT_PAGES);
const { kernel } = batch;
const ourWay = (job: () => void): Way => ({ name: 'ours', run: timed(job) });
const peers = (job: Parameters<typeof nativeWay>[1], args: number[], memory = kernel.bytes) =>
  baselines.map((baseline) => nativeWay(baseline, job, memory, args));

console.log(`${cpus()[0]?.model}, ${cpus().length} cores, Node ${process.version}, pages of ${PAGE} B`);
console.log(
  `Ours is the SIMD build unless named otherwise. Speeds in GB/s of pages (medians); ratio: ours to the peer,`,
);
console.log(`median of ${rounds} rounds; spread: its interquartile range.`);

// Filled with zero pages; random pages are written where wanted.
const ramPages = RAM_BYTES / PAGE;
const mixes: [name: string, isZero: (i: number) => boolean][] = [
  ['zero pages', () => true],
  ['random pages', () => false],
  ['half of each, mixed', (i) => ((i * 2654435761) >>> 16) % 2 === 0],
];

function scanRows(what: string, at: number, count: number, bitmap: number, owner: typeof kernel, n: number): Row[] {
  return mixes.flatMap(([name, isZero]) => {
    const some = new Uint8Array(PAGE).map((_, i) => ((i * 40503) >> 3) | 1);
    for (let i = 0; i < count; i++) {
      if (isZero(i)) owner.bytes.fill(0, at + i * PAGE, at + (i + 1) * PAGE);
      else owner.bytes.set(some, at + i * PAGE);
    }
    const args = [at, PAGE, count, bitmap];
    expectEqual(
      'zero scan',
      owner.zeroScan(at, PAGE, count, bitmap),
      nativeResult('scalar C', 'zeroScan', owner.bytes, args),
    );
    const ours = ourWay(() => owner.zeroScan(at, PAGE, count, bitmap));
    return compareWays(`zero scan, ${what}, ${name}`, count * PAGE, ours, peers('zeroScan', args, owner.bytes), n);
  });
}

if (isWanted('scan')) {
  const ram = await loadKernel({ arenaBytes: RAM_BYTES + 2 * MiB, variant: 'simd' });
  const at = ram.allocate(RAM_BYTES, 4096);
  const bitmap = ram.allocate(ramPages / 8);
  const inRam = scanRows('RAM', at, ramPages, bitmap, ram, Math.min(rounds, 9));
  ram.bytes.fill(0, at, at + RAM_BYTES);
  const half = RAM_BYTES / 2;
  const read = compareWays(
    'read, RAM',
    RAM_BYTES,
    ourWay(() => ram.zeroScan(at, PAGE, ramPages, bitmap)),
    [{ ...nativeWay('scalar C', 'read', ram.bytes, [at, RAM_BYTES]), name: 'C loop' }],
    Math.min(rounds, 9),
  );
  const copy = compareWays(
    'copy, RAM',
    half,
    ourWay(() => ram.bytes.copyWithin(at, at + half, at + RAM_BYTES)),
    [{ ...nativeWay('scalar C', 'copy', ram.bytes, [at, at + half, half]), name: 'memcpy' }],
    Math.min(rounds, 9),
  );
  batch.fill(() => {});
  const hotCopy = compareWays(
    'copy, hot',
    batch.bytes,
    ourWay(() => kernel.bytes.copyWithin(batch.out, batch.next, batch.next + batch.bytes)),
    [{ ...nativeWay('scalar C', 'copy', kernel.bytes, [batch.out, batch.next, batch.bytes]), name: 'memcpy' }],
    rounds,
  );
  show(
    `Bandwidth of this run: RAM is ${RAM_BYTES / MiB} MiB, hot is ${batch.bytes / 1024} KiB; ours: zero scan, copyWithin`,
    [...hotCopy, ...read, ...copy],
  );
  show('Zero scan', [...scanRows('hot', batch.next, HOT_PAGES, batch.bitmap, kernel, rounds), ...inRam]);
}

if (isWanted('compare')) {
  const rows = [patterns[0]!, patterns[1]!, patterns[14]!].flatMap(({ name, change }) => {
    batch.fill((page, _, random) => change(page, random));
    const job = () => kernel.comparePages(batch.old, batch.next, PAGE, HOT_PAGES, batch.bitmap);
    expectEqual('compare', job(), nativeResult('scalar C', 'compare', kernel.bytes, batch.compareArgs));
    return compareWays(`compare, ${name}`, batch.bytes, ourWay(job), peers('compare', batch.compareArgs), rounds);
  });
  show('Compare, hot', rows);
}

if (isWanted('encode')) {
  const rows = patterns.flatMap(({ name, change }) => {
    batch.fill((page, _, random) => change(page, random));
    const job = () => kernel.xbzrleEncodeBatch(batch.olds, batch.news, HOT_PAGES, PAGE, PAGE, batch.out, batch.results);
    for (const baseline of baselines) {
      const ours = job();
      const written = kernel.bytes.slice(batch.out, batch.out + ours);
      expectEqual(`encode, ${name}`, ours, nativeResult(baseline, 'encode', kernel.bytes, batch.encodeArgs));
      expectEqual(`encode, ${name}`, 0, Buffer.compare(written, kernel.bytes.subarray(batch.out, batch.out + ours)));
    }
    return compareWays(`encode, ${name}`, batch.bytes, ourWay(job), peers('encode', batch.encodeArgs), rounds);
  });
  const against = baselines.flatMap((name) =>
    summarize(
      `encode / ${name}`,
      rows.filter((row) => row.name.endsWith(`/ ${name}`)),
    ),
  );
  show('XBZRLE encode, hot', rows);
  show('XBZRLE encode, hot: all patterns', against);
}

if (isWanted('decode')) {
  const rows = patterns
    .filter(({ isEmpty }) => !isEmpty)
    .flatMap(({ name, change }) => {
      batch.fill((page, _, random) => change(page, random));
      batch.encode();
      const { sources, lengths, olds, results } = batch;
      const job = () => kernel.xbzrleDecodeBatch(sources, lengths, olds, HOT_PAGES, PAGE, results);
      const before = batch.view(batch.old).slice();
      for (const baseline of baselines) {
        batch.view(batch.old).set(before);
        nativeResult(baseline, 'decode', kernel.bytes, batch.decodeArgs);
        expectEqual(`decode, ${name}`, 0, Buffer.compare(batch.view(batch.old), batch.view(batch.next)));
      }
      return compareWays(`decode, ${name}`, batch.bytes, ourWay(job), peers('decode', batch.decodeArgs), rounds);
    });
  const against = baselines.flatMap((name) =>
    summarize(
      `decode / ${name}`,
      rows.filter((row) => row.name.endsWith(`/ ${name}`)),
    ),
  );
  show('XBZRLE decode, hot', rows);
  show('XBZRLE decode, hot: all patterns', against);
}

if (isWanted('hash')) {
  batch.fill(() => {});
  const peer = (job: 'hash' | 'crc') => [nativeWay('scalar C', job, kernel.bytes, batch.wordArgs)];
  const words = () => kernel.u32(batch.words, HOT_PAGES).join();
  for (const job of ['hash', 'crc'] as const) {
    if (job === 'hash') kernel.hashPages(batch.next, PAGE, HOT_PAGES, batch.words);
    else kernel.crc32Pages(batch.next, PAGE, HOT_PAGES, batch.words);
    const ours = words();
    nativeResult('scalar C', job, kernel.bytes, batch.wordArgs);
    if (words() !== ours) throw new Error(`${job}: ours and the baseline differ: nothing to compare`);
  }
  show('Page hashes, hot', [
    ...compareWays(
      'page hash (XXH64)',
      batch.bytes,
      ourWay(() => kernel.hashPages(batch.next, PAGE, HOT_PAGES, batch.words)),
      peer('hash'),
      rounds,
    ),
    ...compareWays(
      'page hash (CRC-32)',
      batch.bytes,
      ourWay(() => kernel.crc32Pages(batch.next, PAGE, HOT_PAGES, batch.words)),
      peer('crc'),
      rounds,
    ),
  ]);
}

if (isWanted('all three')) {
  batch.fill(changeMixed, (i) => i % 4 === 0);
  const job = () => {
    kernel.zeroScan(batch.next, PAGE, HOT_PAGES, batch.bitmap);
    kernel.xbzrleEncodeBatch(batch.olds, batch.news, HOT_PAGES, PAGE, PAGE, batch.out, batch.results);
    kernel.hashPages(batch.next, PAGE, HOT_PAGES, batch.words);
  };
  const args = [...batch.encodeArgs, batch.next, batch.bitmap, batch.words];
  show('Scan, encode and hash of one batch (a quarter zero, a quarter unchanged, an eighth all new), hot', [
    ...compareWays('scan + encode + hash', batch.bytes, ourWay(job), peers('pipeline', args), rounds),
  ]);
}

if (isWanted('JS')) {
  const mixed = new Batch(scalar, HOT_PAGES);
  mixed.fill(changeMixed, (i) => i % 4 === 0);
  mixed.encode();
  const [old, next, out] = [mixed.old, mixed.next, mixed.out].map((at) => mixed.view(at)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const spare = out.slice();
  const bitmap = new Uint8Array(HOT_PAGES / 8);
  const crcs = new Uint32Array(HOT_PAGES);
  const lengths = [...scalar.u32(mixed.lengths, HOT_PAGES)];
  const sources = [...scalar.u32(mixed.sources, HOT_PAGES)].map((at) => at - mixed.out);
  const loop = (job: () => void): Way[] => [{ name: 'JS loop', run: timed(job) }];
  const row = (name: string, ours: () => void, theirs: () => void) =>
    compareWays(`scalar build, ${name}`, mixed.bytes, ourWay(ours), loop(theirs), rounds);
  const rows = [
    ...row(
      'zero scan',
      () => scalar.zeroScan(mixed.next, PAGE, HOT_PAGES, mixed.bitmap),
      () => plain.zeroScan(next, PAGE, bitmap),
    ),
    ...row(
      'compare',
      () => scalar.comparePages(mixed.old, mixed.next, PAGE, HOT_PAGES, mixed.bitmap),
      () => plain.comparePages(old, next, PAGE, bitmap),
    ),
    ...row(
      'encode',
      () => scalar.xbzrleEncodeBatch(mixed.olds, mixed.news, HOT_PAGES, PAGE, PAGE, mixed.out, mixed.results),
      () => {
        for (let i = 0, to = 0; i < HOT_PAGES; i++)
          to += Math.max(0, plain.encode(old, next, i * PAGE, PAGE, spare, to));
      },
    ),
    ...row(
      'CRC-32',
      () => scalar.crc32Pages(mixed.next, PAGE, HOT_PAGES, mixed.words),
      () => plain.crc32Pages(next, PAGE, crcs),
    ),
    ...row(
      'decode',
      () => scalar.xbzrleDecodeBatch(mixed.sources, mixed.lengths, mixed.olds, HOT_PAGES, PAGE, mixed.results),
      () => {
        for (let i = 0; i < HOT_PAGES; i++) plain.decode(spare, sources[i]!, lengths[i]!, old, i * PAGE, PAGE);
      },
    ),
  ];
  show('Scalar WASM against plain JavaScript, hot, the batch of scan + encode + hash', rows);
}

if (isWanted('profile')) show('Profile: what stands between ours and C', profile(batch, rounds));

if (isWanted('workers')) show('Workers: scan + encode + hash, 128 pages each', [await measureWorkers(rounds)]);

if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(all, null, 2)}\n`);
