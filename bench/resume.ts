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
 * With --serve it measures the page server instead (serving.ts).
 *
 * All but every fourth MiB of RAM have data, up to --data MiB of them; the rest is zero, and files have holes there. Files are
 * in --dir, in memory by default.
 */
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findQemu } from '../test/qemu/qemu.ts';
import { Qmp } from '../test/qemu/qmp.ts';
import { at, cli, dots, end, machine, makeDir, median, type Saved, save } from './saved-guest.ts';
import { serveAll } from './serving.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '256,2048' },
    data: { type: 'string', default: '1536' },
    rounds: { type: 'string', default: '5' },
    ways: { type: 'string', default: 'map,plain,mapped-ram,multifd' },
    dir: { type: 'string', default: '/dev/shm' },
    serve: { type: 'boolean', default: false },
  },
});
const qemu = findQemu('10.0') as string;
const dir = makeDir(values.dir);
/** How long a QEMU may take, in ms. */
const limitMs = 120_000;

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
    return [qemu, ...machine(dir, saved.mib, 'stdio'), ...settings, ...channels, '-incoming', `file:${file(saved)}`];
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
      ...machine(dir, mib, 'stdio'),
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
  const args = [...machine(dir, saved.mib, 'stdio'), ...way.args(saved), '-incoming', 'defer'];
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

const chosen = values.ways.split(',');

/** Measures each way at a size, in turns. */
async function measure(mib: number): Promise<void> {
  const saved = await save(dir, mib, Number(values.data));
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

for (const mib of values.mib.split(',').map(Number)) {
  if (values.serve) await serveAll({ dir, mib, data: Number(values.data), rounds: Number(values.rounds) });
  else await measure(mib);
}
