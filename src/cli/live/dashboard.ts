/** One line on a terminal that shows how a migration goes. */
import type { MigrationProgress, MigrationStatus } from '../../migrate/progress.ts';
import { isQuiet } from '../messages.ts';
import { type LiveVerb, migrationLine } from '../print/migration-line.ts';

const finalStatuses: ReadonlySet<MigrationStatus> = new Set(['completed', 'failed', 'cancelled']);

/** Least time between two updates, in ms. */
const intervalMs = 200;

export class Dashboard {
  readonly #verb: LiveVerb;
  readonly #isShown = process.stderr.isTTY === true && !isQuiet();
  #hasLine = false;
  #latest = { at: Number.NEGATIVE_INFINITY, status: '' };

  constructor(verb: LiveVerb) {
    this.#verb = verb;
  }

  /** Takes the latest progress. A new status is shown at once. */
  readonly show = (progress: MigrationProgress): void => {
    if (!this.#isShown) return;
    // What follows says it in full.
    if (finalStatuses.has(progress.status)) {
      this.hide();
      return;
    }
    const now = performance.now();
    const { status } = progress;
    if (now - this.#latest.at < intervalMs && status === this.#latest.status) return;
    this.#latest = { at: now, status };
    this.#hasLine = true;
    process.stderr.write(`\r\x1b[K${migrationLine(this.#verb, progress, (process.stderr.columns || 80) - 1)}`);
  };

  /** Clears the line for other output. */
  hide(): void {
    if (this.#hasLine) process.stderr.write('\r\x1b[K');
    this.#hasLine = false;
  }

  stop(): void {
    this.hide();
  }
}
