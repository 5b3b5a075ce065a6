/**
 * `npm run bench:live`: a real QEMU 10.0 migrates to another, to `vmferry receive`, and through `vmferry relay`; and
 * `vmferry send` to a QEMU. One after the other in turns on this machine, over loopback. Prints seconds from the command
 * `migrate` until the destination has everything (for send: its total-time, without its start and the check of FILE),
 * CPU seconds per GiB on the wire of the process that is measured, whole, and ratios of the seconds to QEMU in the same
 * round, with their spread. The row `source` has the CPU time of QEMU as a source, for comparison with send.
 *
 *     npm run bench:live -- --mib 1024 --rounds 5 --modes plain,multifd-none
 *     npm run bench:live -- --modes multifd-none --ways qemu,qemu-zstd,relay-zstd
 *
 * `relay-zstd` encodes the mode's RAM again, as zstd in 4 channels. It is compared with `qemu-zstd`, where the source does
 * that.
 *
 * Destinations begin with memory that nobody has touched (`cold`), as a destination does. With --warm, QEMU's
 * destination has its memory allocated before the clock starts. A file of ours cannot have that; as much memory is
 * touched and freed again before, so that a hypervisor below this machine need not provide it meanwhile.
 */
import { spawn } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Qemu } from '../test/qemu/qemu.ts';
import { seeded } from './patterns.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '5' },
    modes: { type: 'string', default: 'plain,multifd-none,multifd-zlib,multifd-zstd' },
    ways: { type: 'string', default: 'qemu,receive,send,relay' },
    dir: { type: 'string', default: '/dev/shm' },
    warm: { type: 'boolean', default: false },
  },
});
const MiB = 1 << 20;
const mib = Number(values.mib);
const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const dir = mkdtempSync(join(values.dir, 'vmferry-bench-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
/** Clock ticks per second in /proc. */
const ticks = 100;

/** A quarter of zeros, the rest text-like and random pages. */
function fill(path: string): void {
  const random = seeded(7);
  const words = new Uint32Array(MiB / 4);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, mib * MiB);
  for (let at = 0; at < mib; at++) {
    if (at % 4 === 3) continue;
    const range = at % 4 === 2 ? 2 ** 32 : 64;
    for (let i = 0; i < words.length; i++) words[i] = random(range);
    writeSync(fd, new Uint8Array(words.buffer), 0, MiB, at * MiB);
  }
  closeSync(fd);
}

const ram = join(dir, 'ram');
const backend = (path: string, warm: boolean) =>
  `memory-backend-file,id=ram,mem-path=${path},size=${mib}M,share=on${warm ? ',prealloc=on' : ''}`;
const machine = (path: string, warm = false) => [
  ...['-M', 'none,memory-backend=ram', '-m', String(mib), '-nodefaults', '-object', backend(path, warm)],
];

interface Mode {
  capabilities: string[];
  parameters: Record<string, unknown>;
  send: string[];
}

function modeOf(name: string): Mode {
  const [kind, compression = 'none'] = name.split('-');
  const rate = { 'max-bandwidth': 0 };
  if (kind === 'plain') return { capabilities: ['return-path'], parameters: rate, send: [] };
  return {
    capabilities: ['return-path', 'multifd'],
    parameters: { ...rate, 'multifd-channels': 4, 'multifd-compression': compression },
    send: ['--multifd-channels', '4', ...(compression === 'none' ? [] : ['--multifd-compression', compression])],
  };
}

interface Run {
  seconds: number;
  cpu: number;
  /** CPU seconds of QEMU's source. */
  source?: number;
}

/** User and system time of a process so far, in seconds. */
async function cpuOf(pid: number): Promise<number> {
  const { readFileSync } = await import('node:fs');
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}

/** Runs a live command; its CPU time is printed when it ends. */
function startCommand(args: string[]) {
  const script = `TIMEFORMAT='cpu %U %S'; time "$@"`;
  const child = spawn('bash', ['-c', script, 'bash', process.execPath, cli, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    output += piece;
  });
  let hear: (uri: string) => void = () => {};
  const uri = new Promise<string>((resolve) => {
    hear = resolve;
  });
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
    const match = /^listening on (\S+)$/m.exec(text);
    if (match !== null) hear(match[1] as string);
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.once('close', (code) => {
      const match = /^cpu ([\d.]+) ([\d.]+)$/m.exec(text);
      if (code !== 0 || match === null) reject(new Error(`${args[0]} ended with ${code}: ${text}`));
      else resolve(Number(match[1]) + Number(match[2]));
    });
  });
  ended.catch(() => {});
  return { uri, ended, output: () => output };
}

async function startTarget({ capabilities, parameters }: Mode): Promise<Qemu> {
  const path = join(dir, 'target-ram');
  rmSync(path, { force: true });
  const target = await Qemu.start({
    version: '10.0',
    args: [...machine(path, values.warm), '-incoming', 'defer', '-S'],
  });
  await target.setCapabilities(capabilities);
  await target.setParameters(parameters);
  return target;
}

async function listen(target: Qemu): Promise<string> {
  await target.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const { 'socket-address': addresses } = (await target.queryMigrate()) as unknown as {
    'socket-address': { port: string }[];
  };
  return `tcp:127.0.0.1:${addresses[0]?.port}`;
}

async function migrate(source: Qemu, uri: string): Promise<void> {
  await source.execute('cont');
  await source.execute('migrate', { uri });
  await source.waitForMigration();
}

/** Touches as much memory as the guest has, and frees it. */
function touchMemory(): void {
  const path = join(dir, 'touched');
  const bytes = new Uint8Array(MiB);
  const fd = openSync(path, 'w');
  for (let at = 0; at < mib; at++) writeSync(fd, bytes);
  closeSync(fd);
  rmSync(path);
}

const seconds = (start: number) => (performance.now() - start) / 1000;

/** The ways to move the same guest. Each returns what the destination, or the command, took. */
type Way = (source: Qemu, mode: Mode, capture: string) => Promise<Run>;

const ways: Record<string, Way> = {
  async qemu(source, mode) {
    await using target = await startTarget(mode);
    const uri = await listen(target);
    const [before, sourceBefore] = [await cpuOf(target.pid), await cpuOf(source.pid)];
    const start = performance.now();
    await migrate(source, uri);
    await target.waitForMigration();
    const run = { seconds: seconds(start), cpu: (await cpuOf(target.pid)) - before };
    return { ...run, source: (await cpuOf(source.pid)) - sourceBefore };
  },
  async receive(source) {
    rmSync(join(dir, 'target-ram'), { force: true });
    if (values.warm) touchMemory();
    const { uri, ended } = startCommand(['receive', 'tcp:127.0.0.1:0', join(dir, 'out')]);
    const to = await uri;
    const start = performance.now();
    await migrate(source, to);
    const cpu = await ended;
    const run = { seconds: seconds(start), cpu };
    rmSync(join(dir, 'out'), { force: true });
    return run;
  },
  async send(_, mode, capture) {
    await using target = await startTarget(mode);
    const uri = await listen(target);
    const { ended, output } = startCommand(['send', capture, uri, ...mode.send, '--json']);
    const cpu = await ended;
    await target.waitForMigration();
    const { progress } = JSON.parse(output()) as { progress: { 'total-time': number } };
    return { seconds: progress['total-time'] / 1000, cpu };
  },
  async relay(source, mode) {
    await using target = await startTarget(mode);
    const { uri, ended } = startCommand(['relay', 'tcp:127.0.0.1:0', await listen(target)]);
    const to = await uri;
    const start = performance.now();
    await migrate(source, to);
    await target.waitForMigration();
    const run = { seconds: seconds(start), cpu: 0 };
    return { ...run, cpu: await ended };
  },
  async 'qemu-zstd'(source, mode) {
    const zstd = modeOf('multifd-zstd');
    await source.setCapabilities(zstd.capabilities);
    await source.setParameters(zstd.parameters);
    const run = await (ways.qemu as Way)(source, zstd, '');
    await source.setParameters({ 'multifd-compression': 'none', ...mode.parameters });
    await source.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'multifd', state: mode.capabilities.includes('multifd') }],
    });
    return run;
  },
  async 'relay-zstd'(source) {
    await using target = await startTarget(modeOf('multifd-zstd'));
    const encoding = ['--target-multifd-channels', '4', '--target-multifd-compression', 'zstd', '--scratch', dir];
    const { uri, ended } = startCommand(['relay', 'tcp:127.0.0.1:0', await listen(target), ...encoding]);
    const to = await uri;
    const start = performance.now();
    await migrate(source, to);
    await target.waitForMigration();
    const run = { seconds: seconds(start), cpu: 0 };
    return { ...run, cpu: await ended };
  },
};

const sorted = (list: number[]) => list.toSorted((a, b) => a - b);
const at = (list: number[], share: number) => sorted(list)[Math.floor((list.length - 1) * share)] as number;
const median = (list: number[]) => at(list, 0.5);

function print(name: string, runs: Run[], peers: Run[], gib: number): void {
  const ratios = runs.map((run, i) => run.seconds / (peers[i]?.seconds ?? Number.NaN));
  const cpus = runs.map((run) => run.cpu / gib);
  const spread = at(ratios, 0.75) - at(ratios, 0.25);
  const text = [median(runs.map((run) => run.seconds)), median(cpus), median(ratios), spread];
  console.log(`  ${name.padEnd(11)}${text.map((x) => x.toFixed(2).padStart(10)).join('')}`);
  const source = runs.flatMap((run) => (run.source === undefined ? [] : [run.source / gib]));
  if (source.length > 0) console.log(`  ${'source'.padEnd(21)}${median(source).toFixed(2).padStart(10)}`);
}

fill(ram);
const capture = join(dir, 'capture');
{
  await using source = await Qemu.start({ version: '10.0', args: machine(ram) });
  await source.migrate(`file:${capture}`, { parameters: { 'max-bandwidth': 0 } });
}
const idle = startCommand(['--version']).ended;
console.log(`vmferry --version: ${(await idle).toFixed(2)} CPU s`);
const chosen = values.ways.split(',');
for (const name of values.modes.split(',')) {
  const mode = modeOf(name);
  await using source = await Qemu.start({ version: '10.0', args: machine(ram) });
  await source.setCapabilities(mode.capabilities);
  await source.setParameters(mode.parameters);
  const runs = new Map<string, Run[]>(chosen.map((way) => [way, []]));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (let i = 0; i < chosen.length; i++) {
      const way = chosen[(i + round) % chosen.length] as string;
      runs.get(way)?.push(await (ways[way] as (typeof ways)[string])(source, mode, capture));
    }
  }
  console.log(`\n${name}, ${mib} MiB, memory of QEMU's destination ${values.warm ? 'warm' : 'cold'}`);
  console.log(`  ${'way'.padEnd(11)}${['s', 'CPU s/GiB', 'of QEMU', 'spread'].map((x) => x.padStart(10)).join('')}`);
  // A quarter is zero pages.
  const gib = (mib * 0.75) / 1024;
  for (const way of chosen) {
    const peer = way === 'relay-zstd' ? 'qemu-zstd' : 'qemu';
    print(way, runs.get(way) ?? [], runs.get(peer) ?? [], gib);
  }
}
