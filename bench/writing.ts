/**
 * `npm run bench:writing`: compares our writers with other programs that write the same. Needs QEMU
 * (test/qemu/install.sh) and, for compression, zlib1g-dev and libzstd-dev. Every time includes syncing the output.
 * Prints tables; `-- --json FILE` also writes their rows.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { OutputFile, openSource, RawRam, writeMappedRam } from '../src/node.ts';
import { readPayloads } from './channel-payloads.ts';
import { measureEncoders } from './codecs.ts';
import { compareCommands, compareInTurns, copy, time, vmferry } from './commands.ts';
import { makeGuestFiles, stoppedGuest } from './guest-files.ts';
import type { Row } from './measure.ts';
import { printTable } from './table.ts';

const { values } = parseArgs({
  options: {
    json: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    mib: { type: 'string', default: '2048' },
    dir: { type: 'string', default: tmpdir() },
  },
});
const rounds = Number(values.rounds);
const bytes = Number(values.mib) * 2 ** 20;
const dir = mkdtempSync(join(values.dir, 'vmferry-bench-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));

const all: Row[] = [];
function show(title: string, rows: Row[]): void {
  all.push(...rows);
  printTable(title, rows);
}

console.log(`A guest of ${values.mib} MiB, saved by QEMU 10.0; Node ${process.version}. Medians of ${rounds} rounds;`);
console.log('ratio: ours to the peer, above 1 ours is faster; spread: its interquartile range.');
const { ram, stream, mappedRam, multifd } = await makeGuestFiles(dir, bytes);

for (const [what, from, to] of [
  ['stream to mapped-ram', stream, 'out.mapped-ram'],
  ['mapped-ram to stream', mappedRam, 'out.stream'],
  ['mapped-ram to mapped-ram', mappedRam, 'out.mapped-ram'],
] as const) {
  show(`convert, ${what}; GB/s of the input file`, [
    ...(await compareCommands('verified', from, [vmferry(`convert '${from}' ${to}`), copy(from)], rounds, dir)),
    ...(await compareCommands(
      'not verified',
      from,
      [vmferry(`convert '${from}' ${to} --no-verify`), copy(from)],
      rounds,
      dir,
    )),
  ]);
}

/** Seconds that a job takes. */
async function seconds(work: () => Promise<void>): Promise<number> {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

const out = join(dir, 'written');
async function writeOurs(directIo: boolean): Promise<number> {
  const source = await openSource(ram);
  const taken = await seconds(async () => {
    const output = new OutputFile(out, { directIo });
    const content = new RawRam([{ idstr: 'pc.ram', source }]);
    await writeMappedRam({ configuration: { machine: 'none', capabilities: [] }, ram: content }, output.file);
    await output.commit();
  });
  await source.close();
  rmSync(out);
  return taken;
}

/** QEMU saves the same RAM; the time excludes its start. */
async function writeQemu(): Promise<number> {
  await using qemu = await stoppedGuest(ram, bytes);
  const taken = await seconds(async () => {
    await qemu.migrate(`file:${out}`, { timeout: 300_000, capabilities: ['mapped-ram'] });
    execFileSync('sync', [out]);
  });
  rmSync(out);
  return taken;
}

const pwrite = fileURLToPath(new URL('pwrite', import.meta.url));
show('mapped-ram, written from the RAM of the guest; GB/s of RAM', [
  ...(await compareInTurns(
    'writeMappedRam',
    bytes,
    [
      { name: 'ours', seconds: () => writeOurs(false) },
      { name: 'QEMU 10.0', seconds: writeQemu },
      { name: 'native pwrite', seconds: () => time({ name: 'pwrite', line: `'${pwrite}' '${ram}' out` }, dir) },
    ],
    rounds,
  )),
  ...(await compareInTurns(
    'writeMappedRam with direct I/O',
    bytes,
    [
      { name: 'ours', seconds: () => writeOurs(true) },
      { name: 'QEMU 10.0', seconds: writeQemu },
      { name: 'native pwrite', seconds: () => time({ name: 'pwrite', line: `'${pwrite}' '${ram}' out` }, dir) },
    ],
    rounds,
  )),
]);

if (existsSync(new URL('codecs.node', import.meta.url))) {
  const pages = readPayloads(multifd.none.channels[0] as string, 96 << 20);
  for (const [format, levels] of [
    ['zlib', [1, 6]],
    ['zstd', [1, 3]],
  ] as const) {
    const rows: Row[] = [];
    const sizes: string[] = [];
    for (const level of levels) {
      const measured = await measureEncoders(format, level, pages, rounds);
      rows.push(...measured.rows);
      sizes.push(...measured.sizes.map((size) => size.toFixed(3)));
    }
    show(`Compression of ${pages.total >> 20} MiB of packets by ${format}; GB/s of pages`, rows);
    console.log(`  sizes relative to the native library's: ${sizes.join(', ')}`);
  }
} else {
  console.log(
    '\nNo native zlib and zstd to compare with: apt-get install zlib1g-dev libzstd-dev, then run this again.',
  );
}

if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(all, null, 2)}\n`);
