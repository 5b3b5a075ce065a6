/**
 * Several files that belong together: a main file, and others that are meaningless without it or beside another main
 * file. If the main file exists, exactly its own others exist, even if the process or the machine dies at any point:
 *
 *     all files are written beside their names, and synced
 *     the old main file is removed, and the directories synced       from here on there is no main file
 *     stale others are removed, the new others get their names, and the directories are synced
 *     the new main file gets its name, and its directory is synced
 */

import { rmSync } from 'node:fs';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import { OutputFile, syncDirectory } from './output-file.ts';

export class OutputSet implements AutoClosed {
  readonly main: OutputFile;
  readonly others: readonly OutputFile[];

  constructor(main: string, others: readonly string[]) {
    const opened: OutputFile[] = [];
    try {
      for (const path of [main, ...others]) opened.push(new OutputFile(path));
    } catch (error) {
      for (const output of opened) void output.abandon();
      throw error;
    }
    this.main = opened[0] as OutputFile;
    this.others = opened.slice(1);
  }

  /** Makes the set visible. `stale`: files of the previous set to remove. */
  async commit(stale: readonly string[]): Promise<void> {
    for (const output of this.#all) await output.seal();
    // Nothing waits from here on, so no signal handler runs in between.
    const syncAll = () => new Set(this.#all.map(({ directory }) => directory)).forEach(syncDirectory);
    this.main.removeOld();
    syncAll();
    for (const path of stale) rmSync(path, { force: true });
    for (const output of this.others) output.reveal();
    syncAll();
    this.main.reveal();
    syncAll();
  }

  /** Removes everything unfinished. */
  async abandon(): Promise<void> {
    for (const output of this.#all) await output.abandon();
  }

  /** Abandons the set unless it was committed. */
  [asyncDispose](): Promise<void> {
    return this.abandon();
  }

  get #all(): readonly OutputFile[] {
    return [this.main, ...this.others];
  }
}
