/** One line on a terminal that shows how a migration goes. */
import type { MigrationProgress } from '../../migrate/progress.ts';
import { isQuiet } from '../messages.ts';
import { formatBytes } from '../print/format.ts';

/** Least time between two updates, in ms. */
const intervalMs = 200;

export class Dashboard {
  readonly #verb: string;
  readonly #isShown = process.stderr.isTTY === true && !isQuiet();
  #hasLine = false;
  #latest = 0;

  constructor(verb: string) {
    this.#verb = verb;
  }

  /** Takes the latest progress. */
  readonly show = (progress: MigrationProgress): void => {
    if (!this.#isShown) return;
    const now = Date.now();
    if (now - this.#latest < intervalMs && progress.status === 'active') return;
    this.#latest = now;
    this.#hasLine = true;
    const columns = (process.stderr.columns || 80) - 1;
    process.stderr.write(`\r\x1b[K${describeProgress(this.#verb, progress).slice(0, columns)}`);
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

/** The figures that matter while one waits. */
function describeProgress(verb: string, { status, ram }: MigrationProgress): string {
  if (ram === undefined) return `${verb}: ${status}`;
  const { remaining, mbps } = ram;
  const rate = (mbps * 1e6) / 8;
  const parts = [`pass ${ram['dirty-sync-count']}`, `${formatBytes(ram.transferred)} sent`, `${formatBytes(rate)}/s`];
  if (remaining > 0) parts.push(`${formatBytes(remaining)} left`);
  const dirtied = ram['dirty-pages-rate'];
  if (dirtied !== undefined && dirtied > 0) parts.push(`${formatBytes(dirtied * ram['page-size'])}/s dirtied`);
  if (remaining > 0 && rate > 0) parts.push(`${Math.ceil(remaining / rate)} s to go`);
  return `${verb}: ${status}, ${parts.join(', ')}`;
}
