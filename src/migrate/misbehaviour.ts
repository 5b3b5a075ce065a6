/**
 * A VM that misbehaves on demand, for those who test clients of its monitor. What it does is stated, and what chance decides
 * comes from a seed, so each run does the same. Nothing of this is in the engine: a migration is given other lines, another
 * guest and other parameters.
 *
 *     migrate ──→ setup ──→ active ── RAM sent: PERCENT ──┬─ fail:            its lines break             ──→ failed
 *                                                         ├─ stall:           no byte more, until it is cancelled
 *                                                         └─ never-converges: a quarter of RAM is dirty after each pass
 */
import { systemClock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import { WrappedConnection } from '../io/wrapped-connection.ts';
import type { Guest } from '../vm/guest.ts';
import type { PageBitmap } from '../vm/page-bitmap.ts';
import type { OutgoingHost, OutgoingMigrationOptions } from './outgoing-migration.ts';
import type { RamProgress } from './progress.ts';

/** How a VM misbehaves. Each percentage is of the RAM that is sent in the first pass: 0 is its start, 100 its end. */
export interface Misbehaviour {
  /** The greeting comes late, in ms. */
  lateGreeting?: number;
  /** Events come before the greeting, and between commands and their answers. */
  earlyEvents?: boolean;
  /** Messages come in pieces. */
  splitAnswers?: boolean;
  /** Answers come late, in ms. */
  lateAnswers?: number;
  /** Migrations fail at this percentage. */
  fail?: number;
  /** Migrations stand still at this percentage. */
  stall?: number;
  /** From this percentage on, the guest dirties pages faster than they can be sent. */
  neverConverges?: number;
  /** What chance decides. */
  seed: number;
}

/** Numbers of [0, 1) that depend on the seeds alone (mulberry32). */
export function seededRandom(...seeds: readonly number[]): () => number {
  let state = 0;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  for (const seed of seeds) state ^= Math.imul(seed + Math.floor(next() * 2 ** 32), 0x9e3779b1);
  return next;
}

/** What a migration is made of, before it begins. */
interface MigrationParts {
  host: OutgoingHost;
  options: OutgoingMigrationOptions;
}

/** Changes what a migration is made of. `look` returns how far its RAM is, once that is known. */
export type AlterMigration = (parts: MigrationParts, look: () => RamProgress | undefined) => MigrationParts;

/** Part of RAM that is dirty after each pass. */
const dirtyShare = 1 / 4;
/** How long each sync then takes at least, in ms: passes over zero pages would follow each other at once. */
const syncMs = 20;
/**
 * With these the threshold is one byte, so the loop goes on while a single page is dirty. The bandwidth is what
 * expected-downtime is reckoned with.
 */
const endless = { 'avail-switchover-bandwidth': 100_000_000, 'downtime-limit': 1.5 / 100_000 };

/** Makes migrations that misbehave. */
export function misbehavingMigration({ fail, stall, neverConverges, seed }: Misbehaviour): AlterMigration {
  let count = 0;
  return ({ host, options }, look) => {
    const reaches = atPercentage(look);
    const altered = { host, options: { ...options } };
    const random = seededRandom(seed, count++);
    const { connect } = options;
    if (fail !== undefined || stall !== undefined) {
      const [hasFailed, hasStalled] = [reaches(fail), reaches(stall)];
      altered.options.connect = async (signal) => new FailingLine(await connect(signal), hasFailed, hasStalled);
    }
    if (neverConverges === undefined) return altered;
    const isEndless = reaches(neverConverges);
    const { clock = systemClock } = options;
    const sync = async (bitmaps: readonly PageBitmap[]) => {
      if (!isEndless()) return;
      await clock.sleep(syncMs);
      for (const bitmap of bitmaps) setSome(bitmap, random());
    };
    altered.host = { ...host, guest: restless(host.guest, sync) };
    // Else a guest whose RAM has left within the first window would be stopped at once.
    altered.options.switchoverAck = true;
    altered.options.parameters = endlessParameters(options.parameters, isEndless);
    return altered;
  };
}

/** Whether RAM has come as far as a percentage. Once it has, that stays so. */
const atPercentage = (look: () => RamProgress | undefined) => (percentage: number | undefined) => {
  let isReached = false;
  return () => {
    const ram = percentage === undefined || isReached ? undefined : look();
    if (ram !== undefined) {
      const sent = ram['dirty-sync-count'] > 1 ? 100 : 100 * (1 - ram.remaining / ram.total);
      isReached = sent >= (percentage as number);
    }
    return isReached;
  };
};

/** A line of a migration that fails, or stands still. */
class FailingLine extends WrappedConnection {
  readonly #hasFailed: () => boolean;
  readonly #hasStalled: () => boolean;
  readonly #broken: Promise<never>;
  #break: (error: Error) => void = () => {};

  constructor(line: Connection, hasFailed: () => boolean, hasStalled: () => boolean) {
    super(line);
    this.#hasFailed = hasFailed;
    this.#hasStalled = hasStalled;
    this.#broken = new Promise((_, reject) => {
      this.#break = reject;
    });
    this.#broken.catch(() => {});
  }

  override async write(bytes: Uint8Array): Promise<void> {
    if (this.#hasFailed()) {
      this.destroy();
      throw new PeerError('Unable to write to socket: Connection reset by peer', { code: 'ECONNRESET' });
    }
    if (this.#hasStalled()) await this.#broken;
    await super.write(bytes);
  }

  override destroy(): void {
    this.#break(new PeerError('Unable to write to socket: Broken pipe', { code: 'EPIPE' }));
    super.destroy();
  }
}

/** A guest of which more is dirty whenever somebody asks. */
function restless(guest: Guest, more: (dirty: readonly PageBitmap[]) => Promise<void>): Guest {
  const { configuration, blocks, ram, ignored, framing } = guest;
  return {
    ...{ configuration, blocks, ram },
    ...(ignored === undefined ? {} : { ignored }),
    ...(framing === undefined ? {} : { framing }),
    async syncDirty(dirty) {
      await guest.syncDirty(dirty);
      await more(dirty);
    },
    stop: () => guest.stop(),
    saveDevices: () => guest.saveDevices(),
  };
}

function setSome(bitmap: PageBitmap, from: number): void {
  const count = Math.ceil(bitmap.pages * dirtyShare);
  const first = Math.floor(from * bitmap.pages);
  for (let i = 0; i < count; i++) bitmap.set((first + i) % bitmap.pages);
}

function endlessParameters(
  parameters: OutgoingMigrationOptions['parameters'],
  isEndless: () => boolean,
): OutgoingMigrationOptions['parameters'] {
  return new Proxy(parameters, {
    get: (target, name: keyof typeof parameters) =>
      isEndless() && Object.hasOwn(endless, name) ? endless[name as keyof typeof endless] : target[name],
  });
}
