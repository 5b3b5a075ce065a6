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

export interface LineOptions {
  forward?: Partial<PumpOptions>;
  back?: Partial<PumpOptions>;
  /** Called with each failure. Returns whether it counts as a good end, because everything is done. */
  onFailure: (failure: LineFailure) => boolean;
}

export class Line {
  readonly source: Connection;
  readonly target: Connection;
  readonly forward: Pump;
  /** Undefined if one of the sides has only one direction, such as a file. */
  readonly back: Pump | undefined;
  /** The two directions have ended, and the ends were passed on. After a failure that never happens. */
  readonly ended: Promise<unknown>;

  constructor(source: Connection, target: Connection, { forward, back, onFailure }: LineOptions) {
    this.source = source;
    this.target = target;
    this.forward = new Pump(source, target, { capacity: ringBytes.forward, ...forward });
    const canAnswer = target.canRead && source.canWrite;
    this.back = canAnswer ? new Pump(target, source, { capacity: ringBytes.back, ...back }) : undefined;
    this.ended = Promise.all([
      pass(this.forward, target, { from: 'source', to: 'target' }, onFailure),
      this.back && pass(this.back, source, { from: 'target', to: 'source' }, onFailure),
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

/** Copies one direction, and passes on its end. */
async function pass(
  pump: Pump,
  to: Connection,
  sides: { from: Side; to: Side },
  onFailure: LineOptions['onFailure'],
): Promise<void> {
  try {
    await pump.run();
  } catch (error) {
    if (!onFailure(describe(error, sides))) await new Promise(() => {});
  }
  await to.end();
}

function describe(error: unknown, sides: { from: Side; to: Side }): LineFailure {
  // What is not a failure of a connection was thrown because the target no longer takes part.
  if (!(error instanceof PumpFailure)) return { side: 'target', work: 'other', error };
  return { side: sides[error.end], work: error.end === 'from' ? 'read' : 'write', error: error.error };
}
