/**
 * `npm run bench:files`: compares the commands with other programs that read, copy or examine the same files of a real
 * guest. Needs QEMU (test/qemu/install.sh); analyze-migration.py takes part if bench/fetch-analyze.sh has fetched it.
 * Times whole processes in turns, with the files in the page cache. Prints a table; `-- --json FILE` also writes its
 * rows.
 */
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { measureCodecs } from './codecs.ts';
import { type Command, cat, compareCommands, copy, vmferry } from './commands.ts';
import { makeGuestFiles } from './guest-files.ts';
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

const analyze = join(process.env.VMFERRY_QEMU_DIR || join(homedir(), '.cache/vmferry-qemu'), 'analyze-migration.py');

/** Commands write below `where`. */
const compare = (job: string, file: string, ours: Command, peers: Command[], where = dir) =>
  compareCommands(job, file, [ours, ...peers], rounds, where);

const all: Row[] = [];
function show(title: string, rows: Row[]): void {
  all.push(...rows);
  printTable(title, rows);
}

console.log(
  `A guest of ${bytes / 2 ** 20} MiB, saved by QEMU 10.0; Node ${process.version}. Speeds in GB/s of the file,`,
);
console.log(
  `medians of ${rounds} rounds; ratio: ours to the peer, above 1 ours is faster; spread: its interquartile range.`,
);
const { stream, idleStream, mappedRam, multifd } = await makeGuestFiles(dir, bytes);

const channelsOf = (set: (typeof multifd)['none']) => set.channels.map((path) => `--channel '${path}'`).join(' ');

for (const [what, file] of [
  ['stream', stream],
  ['mapped-ram', mappedRam],
] as const) {
  show(`${what} file of ${(statSync(file).size / 2 ** 20).toFixed(0)} MiB`, [
    ...(await compare(`inspect`, file, vmferry(`inspect '${file}'`), [cat([file])])),
    ...(await compare(`verify`, file, vmferry(`verify '${file}'`), [cat([file])])),
    ...(await compare(`extract`, file, vmferry(`extract '${file}' --all out && sync out/*`), [copy(file)])),
  ]);
}

for (const [compression, set] of Object.entries(multifd)) {
  const files = [set.main, ...set.channels];
  const [largest] = set.channels.toSorted((a, b) => statSync(b).size - statSync(a).size);
  const size = files.reduce((sum, path) => sum + statSync(path).size, 0);
  const command = vmferry(`verify '${set.main}' ${channelsOf(set)}`);
  show(`multifd, 2 channels, ${compression}: ${(size / 2 ** 20).toFixed(0)} MiB; speeds by the larger channel`, [
    ...(await compare('verify', largest as string, command, [cat(files)])),
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
  // Writes to memory where possible, to keep the disk out of the comparison.
  const memory = existsSync('/dev/shm') ? '/dev/shm' : dir;
  for (const [guest, file] of [
    ['a busy guest', stream],
    ['an idle guest', idleStream],
  ] as const) {
    show(`analyze-migration.py on the stream of ${guest}, ${(statSync(file).size / 2 ** 20).toFixed(0)} MiB`, [
      ...(await compare('inspect', file, vmferry(`inspect --sections '${file}'`), [python(`-f '${file}' > out`)])),
      ...(await compare(
        'extract',
        file,
        vmferry(`extract '${file}' --all out`),
        [python(`-m -x -f '${file}'`)],
        memory,
      )),
    ]);
  }
} else {
  console.log('\nanalyze-migration.py is missing: run bench/fetch-analyze.sh.');
}

if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(all, null, 2)}\n`);
