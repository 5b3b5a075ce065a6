/**
 * One connection of the source and the one of the target that belongs to it.
 *
 *     source ══ forward ═══════════════════════════→ target     a good end follows after all bytes
 *            ←═════════════════════════════ back ═══            a failure breaks the other side at once
 */
import type { Connection } from '../io/connection.ts';
import { Pump, PumpFailure, type PumpOptions } from './relay-pump.ts';

/** Bytes of the ring of a connection that carries RAM, and of its other direction. */
const ringBytes = { forward: 1 << 20, back: 64 << 10 };

/** Who is at the end of a connection. */
type Side = 'source' | 'target';

/** A side of a line broke, or sent what it may not send. */
export interface LineFailure {
  side: Side;
  /** What could not be done, or was thrown by the line's owner. */
  work: 'read' | 'write' | 'other';
  error: unknown;
}

/** The way from the source to the target. */
export interface Forward {
  /** Bytes that were read, and bytes that the target has taken. */
  readonly read: number;
  readonly written: number;
  /** Whether the target may have the stream to its end, the offset of the byte after it as far as it is known. */
  mayHavePassed(end: number | undefined): boolean;
  /** The source has ended this direction in good order. */
  readonly hasEnded: boolean;
  /** There may be more to pass on. */
  readonly isBusy: boolean;
  /** Passes everything on, until the source ends. */
  run(): Promise<void>;
}

export interface LineOptions {
  /** Default: a {@link Pump}, with the options `forward`. */
  way?: Forward;
  forward?: Partial<PumpOptions>;
  back?: Partial<PumpOptions>;
  /** Called when the target has ended. Resolves when the source may be told, at the latest when it has ended, too. */
  holdBackEnd?: () => Promise<void>;
  /** Called with each failure. Returns whether it counts as a good end, because everything is done. */
  onFailure: (failure: LineFailure) => boolean;
}

export class Line {
  readonly source: Connection;
  readonly target: Connection;
  readonly forward: Forward;
  /** Undefined if one of the sides has only one direction, such as a file. */
  readonly back: Pump | undefined;
  /** The two directions have ended, and the ends were passed on. After a failure that never happens. */
  readonly ended: Promise<unknown>;

  constructor(source: Connection, target: Connection, { way, forward, back, holdBackEnd, onFailure }: LineOptions) {
    this.source = source;
    this.target = target;
    this.forward = way ?? new Pump(source, target, { capacity: ringBytes.forward, ...forward });
    const canAnswer = target.canRead && source.canWrite;
    this.back = canAnswer ? new Pump(target, source, { capacity: ringBytes.back, ...back }) : undefined;
    const there = pass(this.forward, target, { from: 'source', to: 'target' }, onFailure);
    const held = async () => {
      if (holdBackEnd !== undefined) await Promise.race([there, holdBackEnd()]);
    };
    this.ended = Promise.all([
      there,
      this.back && pass(this.back, source, { from: 'target', to: 'source' }, onFailure, held),
    ]);
  }

  /** Breaks both sides at once. */
  destroy(): void {
    this.source.destroy();
    this.target.destroy();
  }

  /** Releases both sides, after everything has been passed on. */
  async close(): Promise<void> {
    await Promise.all([this.source.close(), this.target.close()]);
  }
}

/** Copies one direction, and passes on its end, after `hold` has resolved. */
async function pass(
  pump: Forward,
  to: Connection,
  sides: { from: Side; to: Side },
  onFailure: LineOptions['onFailure'],
  hold: () => Promise<void> = async () => {},
): Promise<void> {
  try {
    await pump.run();
  } catch (error) {
    if (!onFailure(describe(error, sides))) await new Promise(() => {});
  }
  await hold();
  await to.end();
}

function describe(error: unknown, sides: { from: Side; to: Side }): LineFailure {
  // What is not a failure of a connection was thrown because the target no longer takes part.
  if (!(error instanceof PumpFailure)) return { side: 'target', work: 'other', error };
  return { side: sides[error.end], work: error.end === 'from' ? 'read' : 'write', error: error.error };
}
