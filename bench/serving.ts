/**
 * The page server with a real QEMU 10.0, over unix sockets with preempt:
 *
 *     load    from the first byte of the migration to the first dot of the guest
 *     shell   the same from the start of `vmferry resume --serve`
 *     push    bytes of pages per second from then to the end, beside a QEMU that sends the same guest in postcopy, in turns
 *     faults  how long requests waited at the server, while a guest meets one page after another and the background has 64 MiB/s
 *     http    FILE on a server that takes 20 ms for each request, with the order of an earlier run: from the first dot to the
 *             first 100 ms with at least half as many dots as when all of the guest is there
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { CountingServer } from '../test/io/counting-server.ts';
import { startDestination, startMachine } from '../test/qemu/machine.ts';
import { findQemu } from '../test/qemu/qemu.ts';
import { Qmp } from '../test/qemu/qmp.ts';
import { at, cli, dots, end, machine, median, type Saved, save } from './saved-guest.ts';

const MiB = 1 << 20;
/** How long a QEMU may take, in ms. */
const limitMs = 120_000;
const capabilities = ['events', 'postcopy-ram', 'postcopy-preempt'].map((capability) => ({ capability, state: true }));

interface Size {
  dir: string;
  mib: number;
  data: number;
  rounds: number;
}

/** A QEMU with its monitor. */
interface Running {
  child: ChildProcess;
  qmp: Qmp;
}

async function start(dir: string, name: string, args: string[]): Promise<Running> {
  const socket = join(dir, name);
  rmSync(socket, { force: true });
  const child = spawn(findQemu('10.0') as string, [...args, '-qmp', `unix:${socket},server=on,wait=off`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const qmp = await Qmp.connect(socket, limitMs, () => {
    if (child.exitCode !== null) throw new Error(`QEMU ended with ${child.exitCode}`);
  });
  await qmp.execute('migrate-set-capabilities', { capabilities });
  return { child, qmp };
}

/** A QEMU that waits for postcopy at `uri`. */
async function startWaiting(dir: string, mib: number, uri: string): Promise<Running> {
  const waiting = await start(dir, 'qmp', [...machine(dir, mib, 'stdio'), '-incoming', 'defer']);
  await waiting.qmp.execute('migrate-incoming', { uri }, limitMs);
  return waiting;
}

const reached = async ({ qmp }: Running, status: string) => {
  await qmp.event(({ event, data }) => event === 'MIGRATION' && data?.status === status, limitMs, 0);
  return performance.now();
};

interface Line {
  event: string;
  faults: number;
  sentBytes: number;
  latency: { p50: number; p99: number; max: number };
}

/** Runs `vmferry resume --serve`. Resolves with its last line, and with when each event was printed first. */
function serve(file: string, uri: string, more: string[] = []) {
  const args = [cli, 'resume', file, '--serve', uri, '--postcopy-preempt', '--json', ...more];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const times = new Map<string, number>();
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    for (const [, event = ''] of part.matchAll(/"event":"(\w+)"/g)) {
      if (!times.has(event)) times.set(event, performance.now());
    }
    text += part;
  });
  return new Promise<{ last: Line; times: Map<string, number> }>((resolve, reject) => {
    child.once('close', (code) => {
      if (code !== 0) reject(new Error(`vmferry resume ended with ${code}`));
      else resolve({ last: JSON.parse(text.trim().split('\n').at(-1) as string), times });
    });
  });
}

/** From the start to the first dot, and the bytes per ms that are pushed. */
async function firstOutput(saved: Saved, dir: string) {
  const uri = `unix:${join(dir, 'incoming')}`;
  const target = await startWaiting(dir, saved.mib, uri);
  try {
    const [first, active] = [dots(target.child), reached(target, 'active')];
    const begin = performance.now();
    const { last, times } = await serve(saved.mapped, uri);
    const { at: output } = await first;
    const pushing = (times.get('complete') as number) - (times.get('running') as number);
    return { load: output - (await active), shell: output - begin, push: last.sentBytes / pushing };
  } finally {
    target.qmp.close();
    await end(target.child);
  }
}

/** The bytes per ms that a QEMU sends in postcopy. */
async function ownPush({ mib, words }: Saved, dir: string): Promise<number> {
  const uri = `unix:${join(dir, 'incoming')}`;
  const source = await start(dir, 'source', [...machine(dir, mib, 'stdio'), ...words]);
  const target = await startWaiting(dir, mib, uri);
  try {
    await dots(source.child);
    // Next to nothing comes before postcopy.
    await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': MiB, 'max-postcopy-bandwidth': 0 });
    const before = source.qmp.events.length;
    await source.qmp.execute('migrate', { uri });
    const status = (name: string) =>
      source.qmp.event(({ event, data }) => event === 'MIGRATION' && data?.status === name, limitMs, before);
    await status('active');
    await source.qmp.execute('migrate-start-postcopy');
    await status('postcopy-active');
    const begin = performance.now();
    await status('completed');
    const ms = performance.now() - begin;
    const { ram } = await source.qmp.execute<{ ram: Record<string, number> }>('query-migrate');
    return (ram['postcopy-bytes'] as number) / ms;
  } finally {
    for (const { child, qmp } of [source, target]) {
      qmp.close();
      await end(child);
    }
  }
}

/** Serves a guest that meets one page with data after another. */
async function meet(dir: string): Promise<Line> {
  const bare = { version: '10.0', machine: 'bare', ramMiB: 128 } as const;
  const file = join(dir, 'meeting');
  const pages = { first: 256, count: 30_000 };
  {
    const { qemu, guest } = await startMachine(bare);
    await using _qemu = qemu;
    await guest?.fill(pages, 'random');
    await guest?.startDirtying(pages, 'touch');
    await qemu.migrate(`file:${file}`, { capabilities: ['mapped-ram'], parameters: { 'max-bandwidth': 0 } });
    guest?.close();
  }
  await using target = await startDestination(bare, true);
  await target.setCapabilities(['postcopy-ram', 'postcopy-preempt']);
  const uri = `unix:${join(target.dir, 'incoming')}`;
  await target.execute('migrate-incoming', { uri });
  const { last } = await serve(file, uri, ['--max-postcopy-bandwidth', '64M']);
  rmSync(file);
  return last;
}

/** How long a guest of a file on a slow server takes to half of its speed, and to its first dot before, in ms. */
async function overHttp(saved: Saved, dir: string) {
  const server = await CountingServer.start({ guest: saved.mapped }, { delayMs: 20 });
  const uri = `unix:${join(dir, 'incoming')}`;
  const order = join(dir, 'order');
  const run = async (more: string[]) => {
    const target = await startWaiting(dir, saved.mib, uri);
    const seen: { at: number; count: number }[] = [];
    target.child.stdout?.on('data', (text: Buffer) => seen.push({ at: performance.now(), count: text.length }));
    const active = reached(target, 'active');
    try {
      await serve(server.url('guest'), uri, more);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      return { seen, active: await active, over: performance.now() };
    } finally {
      target.qmp.close();
      await end(target.child);
    }
  };
  await run(['--record', order]);
  const { seen, active, over } = await run(['--order', order]);
  await server.close();
  const between = (from: number, to: number) =>
    seen.reduce((sum, each) => sum + (each.at >= from && each.at < to ? each.count : 0), 0);
  const whole = between(over - 1000, over) / 10;
  const first = seen[0]?.at ?? Number.NaN;
  let half = first;
  while (half < over && between(half, half + 100) < whole / 2) half += 10;
  return { first: first - active, half: half - first };
}

/** Measures the page server with a guest of that size, and prints it. */
export async function serveAll({ dir, mib, data, rounds }: Size): Promise<void> {
  const saved = await save(dir, mib, data);
  const found: Record<string, number[]> = {};
  const note = (name: string, figure: number) => {
    found[name] ??= [];
    found[name].push(figure);
  };
  const gibPerSecond = (bytesPerMs: number) => (bytesPerMs * 1000) / 2 ** 30;
  for (let round = 0; round < rounds; round++) {
    const ours = async () => {
      const { load, shell, push } = await firstOutput(saved, dir);
      note('load, ms', load);
      note('shell, ms', shell);
      note('push, GiB/s', gibPerSecond(push));
      return push;
    };
    const own = async () => {
      const push = await ownPush(saved, dir);
      note('push of QEMU, GiB/s', gibPerSecond(push));
      return push;
    };
    const [one, other] = round % 2 === 0 ? [await ours(), await own()] : [await own(), await ours()].reverse();
    note('push, ratio', (one as number) / (other as number));
    const { faults, latency } = await meet(dir);
    note('faults', faults);
    note('fault p50, ms', latency.p50);
    note('fault p99, ms', latency.p99);
    const { first, half } = await overHttp(saved, dir);
    note('http: first dot, ms', first);
    note('http: half speed, ms', half);
  }
  console.log(`\n${mib} MiB, served${' '.repeat(11)}${['median', 'least', 'most'].map((x) => x.padStart(9)).join('')}`);
  for (const [name, list] of Object.entries(found)) {
    const text = [median(list), at(list, 0), at(list, 1)].map((figure) => figure.toFixed(3).padStart(9));
    console.log(`  ${name.padEnd(24)}${text.join('')}`);
  }
}
