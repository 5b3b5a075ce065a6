/**
 * A real QEMU migrates into `vmferry receive` through a proxy that harms the line. Wherever that happens, the word of where
 * the guest is must be true, and OUT is whole or absent.
 *
 * A few seeded cuts of each mode run with `npm run test:qemu`; VMFERRY_QEMU=full runs many.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import type { PageRange } from './guest.ts';
import { LiveCommand, type LiveEnd } from './live-command.ts';
import { endOf, errorLine, isRunning, seeded, settledStatus, untold } from './live-end.ts';
import { loadInto } from './load.ts';
import { fillStripes, type Machine, pagesOfOurs, type Running, startMachine } from './machine.ts';
import { type Harm, HarmingProxy, type Harms } from './proxy.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences, findAddresses, readTruth } from './truth.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const versions: QemuVersion[] = isFull ? ['7.2', '10.0'] : ['10.0'];

interface Mode {
  capabilities: string[];
  parameters?: Record<string, unknown>;
  postcopy?: boolean;
  /** How many cuts the essential subset has. */
  cuts: number;
}

const multifd = { 'multifd-channels': 3, 'multifd-compression': 'zstd' };
const modes: Record<string, Mode> = {
  plain: { capabilities: [], cuts: 3 },
  'with a return path': { capabilities: ['return-path'], cuts: 6 },
  multifd: { capabilities: ['multifd'], parameters: multifd, cuts: 0 },
  'multifd with a return path': { capabilities: ['multifd', 'return-path'], parameters: multifd, cuts: 4 },
  postcopy: { capabilities: ['postcopy-ram'], postcopy: true, cuts: 6 },
};

const chosen = Object.entries(modes).filter(([, { cuts }]) => isFull || cuts > 0);

/** A source that migrates again and again. */
class Source {
  readonly #machine: Machine;
  readonly #mode: Mode;
  readonly #filled: PageRange;
  #running: Running | undefined;

  constructor(machine: Machine, mode: Mode, filled = pagesOfOurs(machine)) {
    this.#machine = machine;
    this.#mode = mode;
    this.#filled = filled;
  }

  /** A running guest that can be migrated. */
  async ready(): Promise<Running> {
    if (this.#running !== undefined) {
      const { qemu } = this.#running;
      if ((await qemu.queryMigrate()).status === 'completed') await qemu.execute('cont');
      return this.#running;
    }
    this.#running = await startMachine(this.#machine);
    await fillStripes(this.#running, this.#filled);
    await this.#running.qemu.setCapabilities(this.#mode.capabilities);
    await this.#running.qemu.setParameters(this.#mode.parameters ?? {});
    return this.#running;
  }

  /** The next migration gets a new process. */
  async forget(): Promise<void> {
    this.#running?.guest?.close();
    await this.#running?.qemu[Symbol.asyncDispose]();
    this.#running = undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.forget();
  }
}

interface Played {
  end: LiveEnd;
  out: string;
  passed: HarmingProxy['passed'];
  qemu: Qemu;
  /** How the source ended. */
  status: string;
  runs: boolean;
}

/** Migrates once through the proxy. */
async function play(source: Source, mode: Mode, harms: (connection: number) => Harms, args: string[] = []) {
  const out = join(Qemu.makeDir(), 'guest.mapped-ram');
  await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', out, '--json', ...args]);
  await using proxy = await HarmingProxy.open(await command.uri(), harms);
  const { qemu } = await source.ready();
  await qemu.execute('migrate', { uri: proxy.uri });
  if (mode.postcopy === true) await qemu.execute('migrate-start-postcopy').catch(() => {});
  const end = await endOf(command, qemu, proxy);
  const status = await settledStatus(qemu, mode.postcopy === true);
  const running = status !== 'hung' && (await isRunning(qemu));
  return { end, out, passed: proxy.passed, qemu, status, runs: running } satisfies Played;
}

/** Requires that everything that the command said and left is true. */
async function expectTruth({ end, out, status, runs, qemu }: Played, codes: readonly number[], what: string) {
  const about = `${what}: source ${status}${runs ? ', running' : ''}; ${end.stderr}`;
  expect(codes, about).toContain(end.code);
  const isThere = existsSync(out);
  if (isThere) {
    const { code, stdout } = await runCli(['verify', out]);
    expect(code, `${about}\n${stdout}`).toBe(0);
  }
  if (end.code === 0) {
    expect(isThere, about).toBe(true);
    if (status !== 'completed') expect(JSON.parse(end.stdout), about).toMatchObject(untold);
    expect(readdirSync(join(out, '..')), about).toEqual(['guest.mapped-ram']);
    return;
  }
  const { guest } = errorLine(end.stderr);
  const left = readdirSync(join(out, '..')).filter((name) => name !== 'guest.mapped-ram');
  expect(left, about).toEqual(guest === 'split' ? ['guest.mapped-ram.partial'] : []);
  if (status === 'hung') expect(isThere, about).toBe(false);
  else if (guest === 'source') expect([isThere, status, runs], about).toEqual([false, 'failed', true]);
  else if (guest === 'either') {
    expect(['failed', 'completed', 'device, failed', 'postcopy-paused', 'postcopy-active'], about).toContain(status);
    if (status === 'completed') await qemu.execute('cont');
  } else {
    expect([guest, isThere], about).toEqual(['split', false]);
    expect(['postcopy-paused', 'postcopy-active', 'device, failed', 'failed'], about).toContain(status);
    expect(runs, about).toBe(status === 'failed');
    const verified = await runCli(['verify', `${out}.partial`]);
    expect(verified.code, about).toBe(1);
    expect(verified.stdout + verified.stderr, about).toMatch(/incomplete/i);
    expect((await runCli(['inspect', `${out}.partial`])).code, about).not.toBe(2);
  }
}

/** Requires that RAM in the file is that of the stopped source. */
async function expectEqualRam({ out, qemu }: Played, machine: Machine) {
  const truth = await readTruth(qemu, qemu.dir, await findAddresses(qemu));
  const loaded = await loadInto({ ...machine, route: 'mapped-ram', file: out });
  try {
    expect(differences(loaded.truth, truth)).toEqual([]);
  } finally {
    loaded.dispose();
  }
}

/** Where to cut, of the bytes that a whole migration passed. */
function* cutPoints(passed: Played['passed'], count: number, seed: number) {
  const random = seeded(seed);
  for (let i = 0; i < count; i++) {
    const connection = i === 1 ? 0 : Math.floor(random() * passed.length);
    const whole = passed[connection] ?? { there: 0, back: 0 };
    const isClean = random() < 0.5;
    const isBack = i % 4 === 3 && whole.back > 0;
    const length = isBack ? whole.back : whole.there;
    // The last bytes are where most changes. Fewer than 4 bytes are a stranger's.
    const depth = i % 3 === 1 ? length - random() * 400 : random() * length;
    const cutAt = i === 0 ? 4 : Math.max(isBack ? 1 : 4, Math.floor(depth));
    // Nobody can tell a line that ends in good order after the last word from a source that has heard it.
    const harm: Harm = { cutAt, cut: isClean && !isBack ? 'end' : 'reset' };
    yield {
      connection,
      harms: isBack ? { back: harm } : { there: harm },
      what: JSON.stringify({ connection, isBack, ...harm }),
    };
  }
}

describe.skipIf(lacksQemu(...versions))('a line that breaks', () => {
  for (const version of versions) {
    test.each(chosen)(`%s, ${version}`, async (_, mode) => {
      const machine: Machine = { version, machine: 'bare' };
      await using source = new Source(machine, mode);
      const whole = await play(source, mode, () => ({}));
      await expectTruth(whole, [0], 'unharmed');
      if (version === '10.0') await expectEqualRam(whole, machine);
      const count = isFull ? 60 : mode.cuts;
      for (const { connection, harms, what } of cutPoints(whole.passed, count, 7)) {
        // A QEMU whose postcopy or multifd migration has failed cannot always migrate again.
        if (mode.capabilities.some((name) => name === 'multifd' || name === 'postcopy-ram')) await source.forget();
        const played = await play(source, mode, (each) => (each === connection ? harms : {}));
        await expectTruth(played, [0, 3, 130], what);
      }
    });
  }
});

describe.skipIf(lacksQemu(...versions))('a source that completed', () => {
  test.each(versions)('may be a connection that broke before it was read, %s', async (version) => {
    const mode = modes.plain as Mode;
    await using source = new Source({ version, machine: 'bare' }, mode, { first: 256, count: 4 });
    const out = join(Qemu.makeDir(), 'guest.mapped-ram');
    await using command = new LiveCommand(['receive', 'tcp:127.0.0.1:0', out, '--json']);
    await using proxy = await HarmingProxy.open(await command.uri(), () => ({ there: { stallAt: 0 } }));
    const { qemu } = await source.ready();
    await qemu.migrate(proxy.uri);
    proxy.cut();
    const end = await endOf(command, qemu, proxy);
    expect([end.code, errorLine(end.stderr).guest]).toEqual([130, 'either']);
    expect(existsSync(out)).toBe(false);
    await qemu.execute('cont');
    expect(await isRunning(qemu)).toBe(true);
  });
});

describe.skipIf(lacksQemu(...versions))('a line that is slow, silent or wrong', () => {
  const harms: [string, Harms, readonly number[], string[]][] = [
    ['single bytes', { there: { pieces: 1 }, back: { pieces: 1 } }, [0], []],
    ['odd pieces, with delays', { there: { pieces: 33_333, delayMs: 5 }, back: { pieces: 3, delayMs: 20 } }, [0], []],
    ['a silent source', { there: { stallAt: 30_000 } }, [3], ['--idle-timeout', '500ms']],
    ['a source that does not hear', { back: { stallAt: 3 } }, [3], ['--idle-timeout', '500ms']],
    ...(isFull ? [14, 22, 80, 3000, 10_001, 40_000] : [14, 10_001]).map(
      (corruptAt) =>
        [`a wrong byte at ${corruptAt}`, { there: { corruptAt } }, [0, 1, 3], ['--idle-timeout', '2s']] as [
          string,
          Harms,
          readonly number[],
          string[],
        ],
    ),
  ];
  test.each(harms)('%s', async (what, of, codes, args) => {
    for (const mode of [modes['with a return path'], modes['multifd with a return path']] as Mode[]) {
      // Little memory has content, since single bytes take long.
      const machine: Machine = { version: '10.0', machine: 'bare' };
      await using source = new Source(machine, mode, { first: 256, count: what === 'single bytes' ? 24 : 256 });
      const played = await play(source, mode, () => of, args);
      await expectTruth(played, codes, what);
      if (codes.length === 1 && codes[0] === 0) await expectEqualRam(played, machine);
    }
  });
});
