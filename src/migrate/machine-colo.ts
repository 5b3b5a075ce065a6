/**
 * COLO as the monitor of a machine sees it: its role, the event COLO_EXIT, and the failover.
 *
 *     none ── begin ──→ primary, secondary ── the line breaks ──→ COLO_EXIT error, and nothing else
 *                              └── x-colo-lost-heartbeat ──→ processing ──→ none, request; COLO_EXIT, if there was none
 */
/** The side of a COLO that a machine is. */
export type ColoRole = 'primary' | 'secondary';

/** The answer of query-colo-status. */
export interface ColoStatus {
  mode: ColoRole | 'none';
  'last-mode': ColoRole | 'none';
  reason: 'none' | 'request' | 'error' | 'processing';
}

/** The COLO of a machine, as its monitor sees it. */
export class MachineColo {
  readonly #emit: (event: string, data: object) => void;
  #status: ColoStatus = { mode: 'none', 'last-mode': 'none', reason: 'none' };
  /** COLO_EXIT was emitted. */
  #hasLeft = false;

  constructor(emit: (event: string, data: object) => void) {
    this.#emit = emit;
  }

  /** What query-colo-status returns. */
  get status(): Readonly<ColoStatus> {
    return this.#status;
  }

  /** The first checkpoint is under way. */
  begin(mode: ColoRole): void {
    this.#status = { mode, 'last-mode': 'none', reason: 'none' };
    this.#hasLeft = false;
  }

  /** Its line broke. */
  noteError(mode: ColoRole): void {
    this.#exit(mode, 'error');
  }

  /** A failover has begun. @throws Error with QEMU's text, if one had before */
  beginFailover(): void {
    if (this.#status.reason === 'processing') throw new Error('COLO failover is already activated');
    this.#status = { ...this.#status, reason: 'processing' };
  }

  /** This side goes on alone. */
  endFailover(mode: ColoRole): void {
    this.#status = { mode: 'none', 'last-mode': mode, reason: 'request' };
  }

  /** This side has gone on alone: COLO_EXIT, unless its line broke before. */
  exit(mode: ColoRole): void {
    this.#exit(mode, 'request');
  }

  #exit(mode: ColoRole, reason: 'request' | 'error'): void {
    if (!this.#hasLeft) this.#emit('COLO_EXIT', { mode, reason });
    this.#hasLeft = true;
  }
}
