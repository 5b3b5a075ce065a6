/**
 * `npm run bench:resume`: how soon a saved guest of real QEMU 10.0 runs again, in turns: `vmferry resume --map`, and QEMU's own
 * load of the same VM, plain (a stream), as a mapped-ram file, and as a mapped-ram file over four channels (multifd).
 *
 *     npm run bench:resume -- --mib 256,2048 --rounds 5 --ways map,plain,mapped-ram,multifd
 *
 * The guest sends a dot to its serial port again and again. For each size it prints two times in ms, up to the first dot:
 * `load` from the command migrate-incoming, which a QEMU gets that waits; `shell` from the start of the process. `map` loads the
 * small stream that --stream wrote before; from the shell, all is done anew. Then `load` and `shell` as a ratio to QEMU's
 * load over four channels in the same round: above 1, this way is faster. `dots` is how many come in the second after the
 * first one, as a ratio to a guest that plain loaded.
 *
 * All but every fourth MiB of RAM have data, up to --data MiB of them; the rest is zero, and files have holes there. Files are
 * in --dir, in memory by default.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findQemu, Qemu } from '../test/qemu/qemu.ts';
import { Qmp } from '../test/qemu/qmp.ts';
import { seeded } from './patterns.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '256,2048' },
    data: { type: 'string', default: '1536' },
    rounds: { type: 'string', default: '5' },
    ways: { type: 'string', default: 'map,plain,mapped-ram,multifd' },
    dir: { type: 'string', default: '/dev/shm' },
  },
});
const MiB = 1 << 20;
const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const qemu = findQemu('10.0') as string;
const dir = mkdtempSync(join(values.dir, 'vmferry-bench-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
/** How long a QEMU may take, in ms. */
const limitMs = 120_000;

/** Boot code: a dot to COM1, a pause, and again. */
function writeDisk(path: string): void {
  const sector = Buffer.alloc(MiB);
  // mov dx,0x3f8; mov al,'.'; out dx,al; mov cx,0x4000; loop $; jmp to the mov al
  sector.set([0xba, 0xf8, 0x03, 0xb0, 0x2e, 0xee, 0xb9, 0x00, 0x40, 0xe2, 0xfe, 0xeb, 0xf6]);
  sector.set([0x55, 0xaa], 510);
  writeFileSync(path, sector);
}

/** Memory with zeros and data; what the firmware needs is below 16 MiB. */
function writeMemory(path: string, mib: number): void {
  const random = seeded(7);
  const words = new Uint32Array(MiB / 4);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, mib * MiB);
  for (let at = 16, left = Number(values.data); at < mib - 16 && left > 0; at++) {
    if (at % 4 === 3) continue;
    for (let i = 0; i < words.length; i++) words[i] = random(at % 4 === 2 ? 2 ** 32 : 64);
    writeSync(fd, new Uint8Array(words.buffer), 0, MiB, at * MiB);
    left--;
  }
  closeSync(fd);
}

const disk = join(dir, 'disk');
const machine = (mib: number, serial: string) => [
  ...['-M', 'pc', '-m', String(mib), '-nodefaults', '-display', 'none', '-accel', 'tcg', '-serial', serial],
  ...['-drive', `file=${disk},format=raw,if=ide,readonly=off,snapshot=on`],
];

/** The files of a guest. */
interface Saved {
  mib: number;
  stream: string;
  mapped: string;
  small: string;
  /** What --stream printed. */
  words: string[];
}

async function save(mib: number): Promise<Saved> {
  const [ram, stream, mapped, small] = ['ram', 'stream', 'mapped', 'small'].map((name) => join(dir, name));
  writeMemory(ram as string, mib);
  const backend = `memory-backend-file,id=pc.ram,mem-path=${ram},size=${mib}M,share=on`;
  {
    const output = join(dir, 'output');
    const args = [...machine(mib, `file:${output}`), '-object', backend, '-machine', 'memory-backend=pc.ram'];
    await using source = await Qemu.start({ version: '10.0', args });
    while (execFileSync('cat', [output]).length < 10) await new Promise((resolve) => setTimeout(resolve, 20));
    // It runs when it is loaded, because it runs now.
    await source.migrate(`file:${stream}`, { parameters: { 'max-bandwidth': 0 } });
    await source.execute('cont');
    await source.migrate(`file:${mapped}`, { capabilities: ['mapped-ram'] });
  }
  rmSync(ram as string);
  const line = execFileSync(process.execPath, [
    cli,
    'resume',
    mapped as string,
    '--map',
    '--stream',
    small as string,
    '-q',
  ]);
  const words = line.toString().trim().split(' ');
  return { mib, stream, mapped, small, words } as Saved;
}

/** Waits for the first dot on standard output, and then counts dots for a second. */
async function dots(child: ChildProcess): Promise<{ at: number; count: number }> {
  let count = 0;
  const at = await new Promise<number>((resolve, reject) => {
    child.stdout?.on('data', (text: Buffer) => {
      count += text.length;
      resolve(performance.now());
    });
    child.once('exit', (code) => reject(new Error(`QEMU ended with ${code}`)));
  });
  const first = count;
  await new Promise((resolve) => setTimeout(resolve, 1000));
  return { at, count: count - first };
}

async function end(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once('exit', resolve));
  if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
  else return;
  await gone;
}

/** How a way loads a guest: what a waiting QEMU is told, and a command that does all. */
interface Way {
  args(saved: Saved): string[];
  capabilities: string[];
  uri(saved: Saved): string;
  command(saved: Saved): string[];
}

const own = (name: string, capabilities: string[], file: (saved: Saved) => string): Way => ({
  args: () => [],
  capabilities,
  uri: (saved) => `file:${file(saved)}`,
  command(saved) {
    const properties = capabilities.map((each) => (each === 'multifd' ? 'x-multifd' : each));
    const settings = properties.flatMap((each) => ['-global', `migration.${each}=on`]);
    const channels = name === 'multifd' ? ['-global', 'migration.multifd-channels=4'] : [];
    return [qemu, ...machine(saved.mib, 'stdio'), ...settings, ...channels, '-incoming', `file:${file(saved)}`];
  },
});

const ways: Record<string, Way> = {
  map: {
    args: ({ words }) => words.slice(0, words.indexOf('-incoming')),
    capabilities: [],
    uri: ({ small }) => `file:${small}`,
    command: ({ mib, mapped }) => [
      process.execPath,
      cli,
      'resume',
      mapped,
      '--map',
      '-q',
      '--',
      qemu,
      ...machine(mib, 'stdio'),
    ],
  },
  plain: own('plain', [], ({ stream }) => stream),
  'mapped-ram': own('mapped-ram', ['mapped-ram'], ({ mapped }) => mapped),
  multifd: own('multifd', ['mapped-ram', 'multifd'], ({ mapped }) => mapped),
};

/** From migrate-incoming to the first dot. */
async function load(way: Way, saved: Saved): Promise<{ ms: number; count: number }> {
  const socket = join(dir, 'qmp');
  rmSync(socket, { force: true });
  const args = [...machine(saved.mib, 'stdio'), ...way.args(saved), '-incoming', 'defer'];
  const child = spawn(qemu, [...args, '-qmp', `unix:${socket},server=on,wait=off`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const qmp = await Qmp.connect(socket, limitMs, () => {
      if (child.exitCode !== null) throw new Error(`QEMU ended with ${child.exitCode}`);
    });
    const capabilities = way.capabilities.map((capability) => ({ capability, state: true }));
    if (capabilities.length > 0) await qmp.execute('migrate-set-capabilities', { capabilities });
    if (way.capabilities.includes('multifd')) await qmp.execute('migrate-set-parameters', { 'multifd-channels': 4 });
    const running = dots(child);
    const start = performance.now();
    await qmp.execute('migrate-incoming', { uri: way.uri(saved) }, limitMs);
    const { at, count } = await running;
    qmp.close();
    return { ms: at - start, count };
  } finally {
    await end(child);
  }
}

/** From the start of a process to the first dot. */
async function shell(way: Way, saved: Saved): Promise<number> {
  const [program = '', ...args] = way.command(saved);
  const start = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    return (await dots(child)).at - start;
  } finally {
    await end(child);
  }
}

const at = (list: number[], share: number) =>
  list.toSorted((a, b) => a - b)[Math.floor((list.length - 1) * share)] as number;
const median = (list: number[]) => at(list, 0.5);

writeDisk(disk);
const chosen = values.ways.split(',');
for (const mib of values.mib.split(',').map(Number)) {
  const saved = await save(mib);
  const runs = new Map(
    chosen.map((name) => [name, { load: [] as number[], shell: [] as number[], dots: [] as number[] }]),
  );
  for (let round = 0; round < Number(values.rounds); round++) {
    for (let i = 0; i < chosen.length; i++) {
      const name = chosen[(i + round) % chosen.length] as string;
      const { ms, count } = await load(ways[name] as Way, saved);
      runs.get(name)?.load.push(ms);
      runs.get(name)?.dots.push(count);
      runs.get(name)?.shell.push(await shell(ways[name] as Way, saved));
    }
  }
  console.log(
    `\n${mib} MiB\n  ${'way'.padEnd(12)}${['load', 'most', 'ratio', 'shell', 'ratio', 'dots'].map((x) => x.padStart(9)).join('')}`,
  );
  const [peer, plain] = [runs.get('multifd'), runs.get('plain')];
  for (const [name, run] of runs) {
    const ratio = (kind: 'load' | 'shell') => median(run[kind].map((ms, i) => (peer?.[kind][i] ?? Number.NaN) / ms));
    const dotted = median(run.dots.map((count, i) => count / (plain?.dots[i] ?? Number.NaN)));
    const figures = [median(run.load), at(run.load, 1), ratio('load'), median(run.shell), ratio('shell'), dotted];
    const digits = [0, 0, 1, 0, 1, 2];
    const text = figures.map((figure, i) => (Number.isNaN(figure) ? '' : figure.toFixed(digits[i])).padStart(9));
    console.log(`  ${name.padEnd(12)}${text.join('')}`);
  }
}
