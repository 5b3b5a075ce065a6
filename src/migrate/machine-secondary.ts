/**
 * A machine as the secondary side of COLO, from the end of the incoming migration on.
 *
 *     arrived ──→ running ←── checkpoints (colo-secondary.ts)
 *                    └── x-colo-lost-heartbeat ──→ STOP, completed, COLO_EXIT, RESUME
 */
import type { ColoLine } from './colo-line.ts';
import type { CheckpointCache } from './colo-pages.ts';
import { ColoSecondary } from './colo-secondary.ts';
import type { Machine, MachineGuest } from './machine.ts';

export class MachineSecondary {
  readonly #machine: Machine;
  readonly #secondary: ColoSecondary;
  /** Enters a status of the migration. */
  readonly #enter: (status: 'completed') => void;
  #end: () => void = () => {};
  /** Resolves when this side has taken over. */
  readonly ended: Promise<void>;

  constructor(machine: Machine, line: ColoLine, cache: CheckpointCache, enter: (status: 'completed') => void) {
    this.#machine = machine;
    this.#enter = enter;
    this.#secondary = new ColoSecondary(line, {
      cache,
      stop: () => machine.hold('colo'),
      run: () => machine.run(),
      onError: () => machine.colo.noteError('secondary'),
    });
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** Lets the guest run, whatever it did at the source, and takes checkpoints. */
  async start(guest: MachineGuest): Promise<void> {
    await this.#machine.arrive(guest);
    this.#machine.run();
    this.#secondary.start();
  }

  /** x-colo-lost-heartbeat: this guest goes on. Resolves when the command is answered. @throws Error with QEMU's text */
  async failOver(): Promise<void> {
    this.#machine.colo.beginFailover();
    const { isLoading } = this.#secondary;
    const over = this.#takeOver();
    if (!isLoading) await over;
  }

  async #takeOver(): Promise<void> {
    const { colo } = this.#machine;
    await this.#secondary.end();
    await this.#machine.hold('colo');
    this.#enter('completed');
    colo.endFailover('secondary');
    colo.exit('secondary');
    this.#machine.run();
    this.#end();
  }

  /** Breaks the line. */
  break(): void {
    this.#secondary.break();
  }
}
