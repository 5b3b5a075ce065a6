/** One line on a terminal that shows how a migration goes. */
import type { MigrationProgress, MigrationStatus } from '../../migrate/progress.ts';
import type { RelayProgress } from '../../migrate/relay-progress.ts';
import { isQuiet } from '../messages.ts';
import { formatBytes } from '../print/format.ts';
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
    this.#draw(progress.status, (columns) => migrationLine(this.#verb, progress, columns));
  };

  /** Takes the latest progress of a relay. */
  readonly showRelay = (progress: RelayProgress): void => {
    this.#draw(progress.status, (columns) => describeRelay(progress).slice(0, columns));
  };

  #draw(status: MigrationProgress['status'], describe: (columns: number) => string): void {
    if (!this.#isShown) return;
    // What follows says it in full.
    if (finalStatuses.has(status)) {
      this.hide();
      return;
    }
    const now = performance.now();
    if (now - this.#latest.at < intervalMs && status === this.#latest.status) return;
    this.#latest = { at: now, status };
    this.#hasLine = true;
    process.stderr.write(`\r\x1b[K${describe((process.stderr.columns || 80) - 1)}`);
  }

  /** Clears the line for other output. */
  hide(): void {
    if (this.#hasLine) process.stderr.write('\r\x1b[K');
    this.#hasLine = false;
  }

  stop(): void {
    this.hide();
  }
}

function describeRelay({ status, received, transferred, mbps }: RelayProgress): string {
  const share = received === 0 ? '' : ` (${formatShare(transferred / received)})`;
  const rate = `${formatBytes((mbps * 1e6) / 8)}/s`;
  return `relay: ${status}, ${formatBytes(received)} in, ${formatBytes(transferred)} out${share}, ${rate}`;
}

/** A share in percent. */
export const formatShare = (share: number): string => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
