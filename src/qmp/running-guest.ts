/**
 * Measures a running guest through its monitor, and leaves it as it was: nothing is set, stopped or migrated.
 *
 *     query-status, query-migrate…     what it does, and how it would migrate
 *     info mtree, xp                   some of its pages: how many are zero, and how they compress
 *     calc-dirty-rate                  how many different pages it writes within 0.1 s (QEMU 8.2 or later), 1 s, 5 s and 20 s
 */
import { type Clock, systemClock } from '../io/clock.ts';
import { PeerError } from '../io/connection.ts';
import type { QmpClient } from './client.ts';
import { QmpError } from './qmp-error.ts';

/** What calc-dirty-rate said. */
export interface DirtyRateSample {
  /** How long it measured, in ms. */
  ms: number;
  /** Different pages that changed in that time, in bytes/s. QEMU says it in whole MiB/s. */
  bytesPerSecond: number;
}

/** What the monitor said. */
export interface RunningGuest {
  /** Such as pc-i440fx-10.0. Undefined if the monitor does not say it. */
  machine: string | undefined;
  isRunning: boolean;
  ramBytes: number;
  /** The names of those that are on. */
  capabilities: string[];
  /** The numbers and booleans of query-migrate-parameters. */
  parameters: Record<string, number | boolean>;
  /** Shortest first. Empty for a guest that is stopped. */
  dirtyRates: DirtyRateSample[];
  /** Pages that were read, chosen at random. Empty if the monitor cannot read memory. */
  pages: Uint8Array[];
}

/** What is measured, and how. */
export interface MeasureGuestOptions {
  /** Seconds to measure. Default: 1, 5 and 20. */
  seconds?: readonly number[];
  /** How many pages to read. Default 256. */
  pages?: number;
  /** Numbers from 0 to 1, for the choice of pages. */
  random: () => number;
  clock?: Clock;
  signal?: AbortSignal | undefined;
  /** Told when a measurement begins, with its length in ms. */
  begin?: (ms: number) => void;
}

/** The pages that calc-dirty-rate looks at, in all; QEMU takes 128 to 16384 for each GiB. */
const wantedSamples = 8192;
const pageBytes = 4096;
/** The shortest measurement, where QEMU takes ms. */
const shortMs = 100;
const askAgainMs = 20;

/**
 * Measures a guest. Takes as long as the measurements together.
 * @throws QmpError for what the monitor refuses; PeerError if the line breaks, or a migration is running
 */
export async function measureGuest(client: QmpClient, options: MeasureGuestOptions): Promise<RunningGuest> {
  const { seconds = [1, 5, 20], pages = 256, random, clock = systemClock, signal, begin } = options;
  const { running: isRunning, status: runState } = await client.execute('query-status');
  if (runState === 'inmigrate')
    throw new PeerError('the VM waits for an incoming migration: there is no guest to measure');
  const { status } = await client.execute('query-migrate');
  if (status !== undefined && !['none', 'completed', 'failed', 'cancelled'].includes(status)) {
    throw new PeerError(`a migration is running (${status}): ask query-migrate how it goes`);
  }
  const capabilities = (await client.execute('query-migrate-capabilities'))
    .filter(({ state }) => state)
    .map(({ capability }) => capability);
  const parameters = Object.fromEntries(
    Object.entries(await client.execute('query-migrate-parameters'))
      .map(([name, value]) => [name, typeof value === 'bigint' ? Number(value) : value] as const)
      .filter(([, value]) => typeof value === 'number' || typeof value === 'boolean'),
  ) as RunningGuest['parameters'];
  const machine = await machineOf(client);
  const ramBytes = await ramOf(client);
  const read = await readPages(client, pages, random);
  const dirtyRates: DirtyRateSample[] = [];
  for (const ms of isRunning ? [shortMs, ...seconds.map((each) => each * 1000)] : []) {
    begin?.(ms);
    const rate = await calcDirtyRate(client, ms, ramBytes, clock, signal);
    if (rate !== undefined) dirtyRates.push(rate);
  }
  return { machine, isRunning, ramBytes, capabilities, parameters, dirtyRates, pages: read };
}

async function machineOf(client: QmpClient): Promise<string | undefined> {
  const type = await ifKnown(client.execute<string>('qom-get', { path: '/machine', property: 'type' }));
  return typeof type === 'string' ? type.replace(/-machine$/, '') : undefined;
}

async function ramOf(client: QmpClient): Promise<number> {
  const summary = await client.execute<string>('query-memory-size-summary');
  const { 'base-memory': base = 0, 'plugged-memory': plugged = 0 } = summary as Record<string, number>;
  return base + plugged;
}

/** Undefined for a command or an argument that this QEMU does not have. */
async function ifKnown<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}

/** Measures once. Undefined if this QEMU measures whole seconds only. */
async function calcDirtyRate(
  client: QmpClient,
  ms: number,
  ramBytes: number,
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<DirtyRateSample | undefined> {
  const perGiB = Math.round((wantedSamples * 2 ** 30) / Math.max(1, ramBytes));
  const samples = { 'sample-pages': Math.min(16384, Math.max(512, perGiB)) };
  const inMs = { 'calc-time': ms, 'calc-time-unit': 'millisecond', ...samples };
  const unit = (await ifUnit(client.execute<string>('calc-dirty-rate', inMs))) ? 'millisecond' : 'second';
  if (unit === 'second') {
    if (ms < 1000) return undefined;
    await client.execute<string>('calc-dirty-rate', { 'calc-time': ms / 1000, ...samples });
  }
  await clock.sleep(ms, signal);
  for (;;) {
    const asked = unit === 'second' ? {} : { 'calc-time-unit': unit };
    const said = (await client.execute<string>('query-dirty-rate', asked)) as Record<string, unknown>;
    if (said.status === 'measured') {
      // In whole seconds the time is rounded down.
      const took = unit === 'second' ? ms : Number(said['calc-time']);
      return { ms: took, bytesPerSecond: Math.max(0, Number(said['dirty-rate'])) * 2 ** 20 };
    }
    await clock.sleep(askAgainMs, signal);
  }
}

/** False: this QEMU does not have the argument. */
async function ifUnit(answer: Promise<unknown>): Promise<boolean> {
  try {
    await answer;
    return true;
  } catch (error) {
    if (error instanceof QmpError && error.message === "Parameter 'calc-time-unit' is unexpected") return false;
    throw error;
  }
}

/**
 * Ranges of guest-physical memory that are RAM: reading anything else could change a device.
 * @internal exported for its test
 */
export function ramRanges(mtree: string): { from: number; to: number }[] {
  const view = mtree.split(/^FlatView #/m).find((each) => /^\s*AS "memory"/m.test(each)) ?? '';
  const lines = [...view.matchAll(/^\s*([0-9a-f]+)-([0-9a-f]+) \(prio -?\d+, ram\):/gm)];
  return lines.map(([, from = '', to = '']) => ({ from: Number.parseInt(from, 16), to: Number.parseInt(to, 16) + 1 }));
}

async function readPages(client: QmpClient, count: number, random: () => number): Promise<Uint8Array[]> {
  const monitor = (line: string) =>
    ifKnown(client.execute<string>('human-monitor-command', { 'command-line': line })) as Promise<string | undefined>;
  const ranges = ramRanges((await monitor('info mtree -f')) ?? '')
    .map(({ from, to }) => ({ first: Math.ceil(from / pageBytes), end: Math.floor(to / pageBytes) }))
    .filter(({ first, end }) => end > first);
  const total = ranges.reduce((sum, { first, end }) => sum + end - first, 0);
  const pages: Uint8Array[] = [];
  for (let i = 0; i < Math.min(count, total); i++) {
    let at = Math.floor(random() * total);
    const range = ranges.find(({ first, end }) => {
      if (at < end - first) return true;
      at -= end - first;
      return false;
    });
    const address = ((range?.first ?? 0) + at) * pageBytes;
    const page = parseDump((await monitor(`xp /${pageBytes / 4}xw 0x${address.toString(16)}`)) ?? '');
    if (page === undefined) return [];
    pages.push(page);
  }
  return pages;
}

/** The bytes of `xp`. Undefined if it did not print a whole page. */
function parseDump(text: string): Uint8Array | undefined {
  const words = [...text.matchAll(/ 0x([0-9a-f]{8})/g)];
  if (words.length !== pageBytes / 4) return undefined;
  const page = new Uint8Array(pageBytes);
  const view = new DataView(page.buffer);
  for (const [i, [, word = '']] of words.entries()) view.setUint32(i * 4, Number.parseInt(word, 16), true);
  return page;
}
