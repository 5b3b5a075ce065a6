/**
 * `npm run bench:files`: the commands beside what else reads, copies or examines the same files of a real guest. Needs
 * QEMU (test/qemu/install.sh); analyze-migration.py joins if bench/fetch-analyze.sh has fetched it. Whole processes are
 * timed, in turns, with the files in the page cache. Prints a table; `-- --json FILE` writes its rows as well.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { measureCodecs } from './codecs.ts';
import { makeGuestFiles } from './guest-files.ts';
import { type Row, rowOf } from './measure.ts';
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

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const analyze = join(process.env.VMFERRY_QEMU_DIR || join(homedir(), '.cache/vmferry-qemu'), 'analyze-migration.py');

/** A way to do a job: a shell command, run in a directory of its own. */
interface Command {
  name: string;
  line: string;
}

const vmferry = (line: string): Command => ({ name: 'ours', line: `'${process.execPath}' '${cli}' ${line}` });

/** Seconds that a command takes, in a directory of its own below `where`. What it wrote is removed. */
function time({ name, line }: Command, where = dir): number {
  const cwd = mkdtempSync(join(where, 'vmferry-run-'));
  const start = process.hrtime.bigint();
  const { status, stderr } = spawnSync('/bin/sh', ['-c', line], { cwd, encoding: 'utf8', maxBuffer: 1 << 30 });
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  rmSync(cwd, { recursive: true, force: true });
  if (status !== 0) throw new Error(`${name}: ${line}: exit status ${status}\n${stderr.slice(-2000)}`);
  return seconds;
}

/** Runs ours and its peers in turns; speeds in GB/s of the file. What they write goes below `where`. */
function compare(job: string, file: string, ours: Command, peers: Command[], where = dir): Row[] {
  const ways = [ours, ...peers];
  const size = statSync(file).size;
  const speeds: number[][] = ways.map(() => []);
  time({ name: 'cat', line: `cat '${file}' > /dev/null` });
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < ways.length; i++) {
      const way = (i + round) % ways.length;
      speeds[way]?.push(size / time(ways[way] as Command, where) / 1e9);
    }
  }
  return peers.map(({ name }, i) => rowOf(`${job} / ${name}`, speeds[0] as number[], speeds[i + 1] as number[]));
}

const all: Row[] = [];
function show(title: string, rows: Row[]): void {
  all.push(...rows);
  printTable(title, rows);
}

console.log(
  `A guest of ${bytes / 2 ** 20} MiB, saved by QEMU 10.0; Node ${process.version}. Speeds in GB/s of the file,`,
);
console.log(
  `medians of ${rounds} rounds; ratio: ours to the peer, above 1 ours is faster; spread: its quartiles' distance.`,
);
const { stream, idleStream, mappedRam, multifd } = await makeGuestFiles(dir, bytes);

const cat = (files: string[]): Command => ({ name: 'cat', line: `cat ${files.join(' ')} > /dev/null` });
const copy = (file: string): Command => ({
  name: 'cp --sparse=always + sync',
  line: `cp --sparse=always '${file}' copy && sync copy`,
});
const channelsOf = (set: (typeof multifd)['none']) => set.channels.map((path) => `--channel '${path}'`).join(' ');

for (const [what, file] of [
  ['stream', stream],
  ['mapped-ram', mappedRam],
] as const) {
  show(`${what} file of ${(statSync(file).size / 2 ** 20).toFixed(0)} MiB`, [
    ...compare(`inspect`, file, vmferry(`inspect '${file}'`), [cat([file])]),
    ...compare(`verify`, file, vmferry(`verify '${file}'`), [cat([file])]),
    ...compare(`extract`, file, vmferry(`extract '${file}' --all out && sync out/*`), [copy(file)]),
  ]);
}

for (const [compression, set] of Object.entries(multifd)) {
  const files = [set.main, ...set.channels];
  const [largest] = set.channels.toSorted((a, b) => statSync(b).size - statSync(a).size);
  const size = files.reduce((sum, path) => sum + statSync(path).size, 0);
  const command = vmferry(`verify '${set.main}' ${channelsOf(set)}`);
  show(`multifd, 2 channels, ${compression}: ${(size / 2 ** 20).toFixed(0)} MiB; speeds by the larger channel`, [
    ...compare('verify', largest as string, command, [cat(files)]),
  ]);
}

if (existsSync(new URL('codecs.node', import.meta.url))) {
  const rows: Row[] = [];
  for (const format of ['zlib', 'zstd'] as const) {
    rows.push(...(await measureCodecs(format, multifd[format].channels[0] as string, rounds)));
  }
  show('Decompression of the payloads of one channel; speeds in GB/s of pages', rows);
} else {
  console.log(
    '\nNo native zlib and zstd to compare with: apt-get install zlib1g-dev libzstd-dev, then npm run bench:files.',
  );
}

if (existsSync(analyze)) {
  const python = (line: string): Command => ({ name: 'analyze-migration.py', line: `python3 '${analyze}' ${line}` });
  // Into memory, where there is such a place: this is not about the disk.
  const memory = existsSync('/dev/shm') ? '/dev/shm' : dir;
  for (const [guest, file] of [
    ['a busy guest', stream],
    ['an idle guest', idleStream],
  ] as const) {
    show(`analyze-migration.py on the stream of ${guest}, ${(statSync(file).size / 2 ** 20).toFixed(0)} MiB`, [
      ...compare('inspect', file, vmferry(`inspect --sections '${file}'`), [python(`-f '${file}' > out`)]),
      ...compare('extract', file, vmferry(`extract '${file}' --all out`), [python(`-m -x -f '${file}'`)], memory),
    ]);
  }
} else {
  console.log('\nanalyze-migration.py is not here: bench/fetch-analyze.sh fetches it.');
}

if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(all, null, 2)}\n`);
