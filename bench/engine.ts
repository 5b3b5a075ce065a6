/**
 * `npm run bench:engine`: the migration engine beside a real QEMU 10.0, and beside what `estimate` says before.
 *
 * A guest of 4 GiB writes one page after another in a working set of 1 GiB, all the time, and migrates while it does:
 *
 *     qemu → qemu    our boot code under TCG
 *     vm   → qemu    a synthetic guest of `vmferry vm`, which writes as fast as the boot code did
 *     vm   → vm
 *
 * First `estimate SOCKET` asks the source, for the bandwidth and the downtime limit that the migration then has. Prints
 * passes, bytes, downtime and total time of both, and the bytes beside those of the dirty pages that were sent.
 *
 *     npm run bench:engine -- --mib 4096 --set 1024 --bandwidth 1024 --pause 8 --rounds 2
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { connectTo } from '../src/io/node/connect.ts';
import { QmpClient } from '../src/qmp/client.ts';
import { startMachine } from '../test/qemu/machine.ts';
import { Qemu } from '../test/qemu/qemu.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '4096' },
    /** MiB that are written to. */
    set: { type: 'string', default: '1024' },
    /** Port reads of the boot code after each page. */
    pause: { type: 'string', default: '8' },
    /** MiB/s. */
    bandwidth: { type: 'string', default: '1024' },
    /** ms. */
    downtime: { type: 'string', default: '300' },
    rounds: { type: 'string', default: '1' },
    ways: { type: 'string', default: 'qemu-qemu,vm-qemu,vm-vm' },
    /** Measures for 26 s before each migration, not for a second. */
    long: { type: 'boolean', default: false },
  },
});
const MiB = 1 << 20;
const PAGE = 4096;
const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const [mib, set, bandwidth] = [values.mib, values.set, values.bandwidth].map(Number) as [number, number, number];
const dir = mkdtempSync('/dev/shm/vmferry-bench-');
const children: { kill(signal: 'SIGKILL'): unknown }[] = [];
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Info {
  status?: string;
  ram?: Record<string, number>;
  downtime?: number;
  'total-time'?: number;
}

/** One end of a migration. */
interface End {
  /** The monitor that `estimate` asks. */
  socket: string;
  execute(command: string, given?: Record<string, unknown>): Promise<unknown>;
  end(): Promise<void>;
}

let count = 0;

async function startVm(args: string[]): Promise<End> {
  const [first, second] = [join(dir, `m${++count}`), join(dir, `m${++count}`)];
  const words = ['vm', '--compat', '10.0', '--qmp', `unix:${first}`, '--qmp', `unix:${second}`, ...args];
  const child = spawn(process.execPath, [cli, ...words, '--scratch', dir], { stdio: ['ignore', 'ignore', 'inherit'] });
  children.push(child);
  while (!existsSync(second)) await sleep(20);
  const client = await QmpClient.connect(await connectTo({ transport: 'socket', type: 'unix', path: first }));
  const gone = new Promise((resolve) => child.once('close', resolve));
  return {
    socket: `unix:${second}`,
    execute: (command, given = {}) => client.execute(command as 'query-migrate', given as never),
    async end() {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

async function startQemuTarget(uri: string): Promise<End> {
  const qemu = await Qemu.start({
    version: '10.0',
    args: ['-M', 'none', '-m', String(mib), '-nodefaults', '-incoming', uri, '-S'],
  });
  return { socket: '', execute: (name, given) => qemu.execute(name, given), end: () => qemu[Symbol.asyncDispose]() };
}

/** Bytes per second that the boot code writes, found in the first round. */
let rate = 0;

/** Rounds of the boot code that are timed. */
const rounds = 3;

/** The time of so many whole rounds, in ms. */
async function timeRounds(count: () => Promise<number>, rounds: number): Promise<number> {
  const next = async (wanted: number) => {
    while ((await count()) < wanted) await sleep(2);
    return performance.now();
  };
  const first = (await count()) + 1;
  const start = await next(first);
  return (await next(first + rounds)) - start;
}

async function startQemuSource(): Promise<End> {
  const args = ['-qmp', 'unix:second,server=on,wait=off'];
  const { qemu, guest } = await startMachine({ version: '10.0', machine: 'bare', ramMiB: mib, args });
  if (guest === undefined) throw new Error('the guest did not boot');
  const range = { first: 256, count: (set * MiB) / PAGE };
  await guest.fill(range, 'text', 3);
  await guest.startDirtying(range, 'few-bytes', Number(values.pause));
  rate = (rounds * set * MiB * 1000) / (await timeRounds(() => guest.count(), rounds));
  return {
    socket: `unix:${join(qemu.dir, 'second')}`,
    execute: (name, given) => qemu.execute(name, given),
    async end() {
      guest.close();
      await qemu[Symbol.asyncDispose]();
    },
  };
}

async function estimate(socket: string) {
  const words = ['estimate', socket, '--bandwidth', `${bandwidth}M`, '--downtime-limit', String(values.downtime)];
  const child = spawn(process.execPath, [cli, ...words, '--json', ...(values.long ? [] : ['--quick'])], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
  });
  await new Promise((resolve) => child.once('close', resolve));
  return JSON.parse(text) as {
    convergence: { predictions: { dirtying: string; prediction: Record<string, number | boolean> }[] }[];
    running?: { dirtyRates: { ms: number; bytesPerSecond: number }[] };
  };
}

const line = (name: string, passes: unknown, bytes: unknown, downtime: unknown, total: unknown, rest = '') =>
  console.log(
    `  ${name.padEnd(24)}${String(passes ?? '-').padStart(7)}${(Number(bytes) / 1e9).toFixed(2).padStart(9)} GB` +
      `${String(downtime ?? '-').padStart(8)} ms${String(total ?? '-').padStart(8)} ms  ${rest}`,
  );

async function run(way: string): Promise<void> {
  const [from = '', to = ''] = way.split('-');
  const uri = `unix:${join(dir, `line${++count}`)}`;
  const source = from === 'qemu' ? await startQemuSource() : await startVm(vmArgs());
  const target =
    to === 'qemu' ? await startTarget(from, uri) : await startVm(['--memory', `${mib}M`, '--incoming', uri]);
  try {
    await sleep(from === 'qemu' ? 0 : 3000);
    console.log(`\n${way.replace('-', ' → ')}, which writes ${(rate / MiB).toFixed(0)} MiB/s`);
    const said = await estimate(source.socket);
    const rates = said.running?.dirtyRates.map((each) => `${(each.bytesPerSecond / MiB).toFixed(0)} in ${each.ms} ms`);
    for (const { dirtying, prediction: p } of said.convergence[0]?.predictions ?? []) {
      line(`estimate, ${dirtying}`, p.syncs, p.bytes, p.downtimeMs, p.totalMs, p.converges === true ? '' : 'no end');
    }
    const capabilities = [{ capability: 'return-path', state: true }];
    await source.execute('migrate-set-capabilities', { capabilities });
    const limits = { 'max-bandwidth': bandwidth * MiB, 'downtime-limit': Number(values.downtime) };
    await source.execute('migrate-set-parameters', limits);
    await source.execute('migrate', { uri });
    const until = performance.now() + 60_000;
    let info: Info = {};
    while (performance.now() < until && !['completed', 'failed'].includes(info.status ?? '')) {
      await sleep(100);
      info = (await source.execute('query-migrate')) as Info;
    }
    const { ram = {} } = info;
    const overhead = (ram.transferred ?? 0) / ((ram.normal ?? 0) * PAGE) - 1;
    line(
      ...(['migration', ram['dirty-sync-count'], ram.transferred, info.downtime, info['total-time']] as const),
      `${info.status}; ${(overhead * 100).toFixed(2)} % more than its pages; calc-dirty-rate ${rates?.join(', ')} MiB/s`,
    );
  } finally {
    await source.end();
    await target.end();
  }
}

const vmArgs = () => [
  ...['--memory', `${mib}M`, '--workload'],
  `write:rate=${Math.round(rate === 0 ? 500 * MiB : rate)},working-set=${set}M,pattern=text`,
];

/** A source with our boot code needs a machine like its own. */
async function startTarget(from: string, uri: string): Promise<End> {
  if (from !== 'qemu') return startQemuTarget(uri);
  const { startDestination } = await import('../test/qemu/machine.ts');
  const qemu = await startDestination({ version: '10.0', machine: 'bare', ramMiB: mib });
  await qemu.execute('migrate-incoming', { uri });
  return { socket: '', execute: (name, given) => qemu.execute(name, given), end: () => qemu[Symbol.asyncDispose]() };
}

for (let round = 0; round < Number(values.rounds); round++) {
  for (const way of values.ways.split(',')) await run(way);
}
process.exit();
