/**
 * `npm run bench:live`: a real QEMU 10.0 migrates to another, to `vmferry receive`, and through `vmferry relay`; and
 * `vmferry send` to a QEMU. One after the other in turns on this machine, over loopback.
 *
 * Prints seconds from the command `migrate` until the migration is completed: QEMU's destination has everything, or the
 * source was told that the file of receive is durable. For send it is its total-time, from the first connection on.
 * Then CPU seconds per GiB on the wire: `data`, of what follows the start (the line `listening on`; for send: what an
 * attempt takes that finds no target, with the check of FILE), and `whole`, of the process from its start to its end. A
 * QEMU runs before, so its figures are `data`. Last the ratio of the seconds to QEMU in the same round, and its spread.
 * The row `source` has the CPU time of QEMU as a source, for comparison with send.
 *
 *     npm run bench:live -- --mib 1024 --rounds 5 --modes plain,multifd-none
 *     npm run bench:live -- --modes multifd-none --ways qemu,qemu-zstd,relay-zstd
 *
 * `--other cli.js` is another build of vmferry, perhaps an earlier one: the ways `receive-other`, `send-other` and so on use
 * it. `--profile DIR` makes CPU profiles of the commands.
 *
 * `relay-zstd` encodes the mode's RAM again, as zstd in 4 channels. It is compared with `qemu-zstd`, where the source does
 * that.
 *
 * Destinations begin with memory that nobody has touched (`cold`), as a destination does. With --warm, QEMU's
 * destination has its memory allocated before the clock starts. A file of ours cannot have that; as much memory is
 * touched and freed again before, so that a hypervisor below this machine need not provide it meanwhile.
 */
import { spawn } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
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
    profile: { type: 'string' },
    other: { type: 'string' },
  },
});
const MiB = 1 << 20;
const mib = Number(values.mib);
/** The command line that is measured. */
let cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
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
  /** CPU seconds after the start of the process. */
  cpu: number;
  /** CPU seconds of the whole process, of a command. */
  whole?: number;
  /** CPU seconds of QEMU's source. */
  source?: number;
}

/** User and system time of a process so far, in seconds. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}

const profiling = values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${values.profile}`];

/** Runs a live command. `ended` has its CPU seconds, `ready` those up to its ready line, and the URI in it. */
function startCommand(args: string[], exitCode = 0) {
  const script = '"$@" & echo "pid $!" >&2; wait $!; code=$?; times >&2; exit $code';
  const child = spawn('bash', ['-c', script, 'bash', process.execPath, ...profiling, cli, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    output += piece;
  });
  let hear: (at: { uri: string; start: number }) => void = () => {};
  const ready = new Promise<{ uri: string; start: number }>((resolve) => {
    hear = resolve;
  });
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
    const match = /^listening on (\S+)$/m.exec(piece);
    if (match !== null) hear({ uri: match[1] as string, start: cpuOf(Number(/^pid (\d+)$/m.exec(text)?.[1])) });
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.once('close', (code) => {
      const match = /^(\d+)m([\d.]+)s (\d+)m([\d.]+)s\n$/m.exec(
        text.slice(text.lastIndexOf('\n', text.length - 2) + 1),
      );
      if (code !== exitCode || match === null) reject(new Error(`${args[0]} ended with ${code}: ${text}`));
      else resolve(60 * (Number(match[1]) + Number(match[3])) + Number(match[2]) + Number(match[4]));
    });
  });
  ended.catch(() => {});
  return { ready, ended, output: () => output };
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

/** Migrates a QEMU to a command that listens, and perhaps through it to `target`. */
async function through(source: Qemu, command: string[], target?: Qemu): Promise<Run> {
  const { ready, ended } = startCommand(command);
  const { uri, start: started } = await ready;
  const failed = ended.then(() => new Promise<never>(() => {}));
  failed.catch(() => {});
  const start = performance.now();
  await Promise.race([failed, migrate(source, uri).then(() => target?.waitForMigration())]);
  const taken = seconds(start);
  const whole = await ended;
  return { seconds: taken, cpu: whole - started, whole };
}

/** The ways to move the same guest. Each returns what the destination, or the command, took. */
type Way = (source: Qemu, mode: Mode, capture: string) => Promise<Run>;

const ways: Record<string, Way> = {
  async qemu(source, mode) {
    await using target = await startTarget(mode);
    const uri = await listen(target);
    const [before, sourceBefore] = [cpuOf(target.pid), cpuOf(source.pid)];
    const start = performance.now();
    await migrate(source, uri);
    await target.waitForMigration();
    const run = { seconds: seconds(start), cpu: cpuOf(target.pid) - before };
    return { ...run, source: cpuOf(source.pid) - sourceBefore };
  },
  async receive(source) {
    rmSync(join(dir, 'target-ram'), { force: true });
    if (values.warm) touchMemory();
    const run = await through(source, ['receive', 'tcp:127.0.0.1:0', join(dir, 'out')]);
    rmSync(join(dir, 'out'), { force: true });
    return run;
  },
  async send(_, mode, capture) {
    await using target = await startTarget(mode);
    const uri = await listen(target);
    const { ended, output } = startCommand(['send', capture, uri, ...mode.send, '--json']);
    const whole = await ended;
    await target.waitForMigration();
    const { progress } = JSON.parse(output()) as { progress: { 'total-time': number } };
    return { seconds: progress['total-time'] / 1000, cpu: whole - sendStart, whole };
  },
  async relay(source, mode) {
    await using target = await startTarget(mode);
    return await through(source, ['relay', 'tcp:127.0.0.1:0', await listen(target)], target);
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
    return await through(source, ['relay', 'tcp:127.0.0.1:0', await listen(target), ...encoding], target);
  },
};

const sorted = (list: number[]) => list.toSorted((a, b) => a - b);
const at = (list: number[], share: number) => sorted(list)[Math.floor((list.length - 1) * share)] as number;
const median = (list: number[]) => at(list, 0.5);

function print(name: string, runs: Run[], peers: Run[], gib: number): void {
  const ratios = runs.map((run, i) => run.seconds / (peers[i]?.seconds ?? Number.NaN));
  const cpus = runs.map((run) => run.cpu / gib);
  const spread = at(ratios, 0.75) - at(ratios, 0.25);
  const whole = median(runs.map((run) => (run.whole ?? Number.NaN) / gib));
  const text = [median(runs.map((run) => run.seconds)), median(cpus), whole, median(ratios), spread];
  console.log(`  ${name.padEnd(16)}${text.map((x) => (Number.isNaN(x) ? '' : x.toFixed(2)).padStart(10)).join('')}`);
  const source = runs.flatMap((run) => (run.source === undefined ? [] : [run.source / gib]));
  if (source.length > 0) console.log(`  ${'source'.padEnd(26)}${median(source).toFixed(2).padStart(10)}`);
}

fill(ram);
const capture = join(dir, 'capture');
{
  await using source = await Qemu.start({ version: '10.0', args: machine(ram) });
  await source.migrate(`file:${capture}`, { parameters: { 'max-bandwidth': 0 } });
}
const idle = await startCommand(['--version']).ended;
// Nothing listens at port 1.
const sendStart = await startCommand(['send', capture, 'tcp:127.0.0.1:1'], 3).ended;
console.log(`CPU s of vmferry --version: ${idle.toFixed(2)}, of send without a target: ${sendStart.toFixed(2)}`);
const ours = cli;
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
      const isOther = way.endsWith('-other');
      cli = isOther ? (values.other as string) : ours;
      runs.get(way)?.push(await (ways[way.replace(/-other$/, '')] as Way)(source, mode, capture));
    }
  }
  console.log(`\n${name}, ${mib} MiB, memory of QEMU's destination ${values.warm ? 'warm' : 'cold'}`);
  console.log(
    `  ${'way'.padEnd(16)}${['s', 'CPU, data', 'whole', 'of QEMU', 'spread'].map((x) => x.padStart(10)).join('')}`,
  );
  // A quarter is zero pages.
  const gib = (mib * 0.75) / 1024;
  for (const way of chosen) {
    const peer = way.startsWith('relay-zstd') ? 'qemu-zstd' : 'qemu';
    print(way, runs.get(way) ?? [], runs.get(peer) ?? [], gib);
  }
}
