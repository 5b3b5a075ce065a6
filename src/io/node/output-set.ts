/**
 * Several files that are one thing: a main file, and others that mean nothing without it, or beside another main file.
 * Where there is a main file, all of its others are there, and no others; whatever happens in between, the process or the
 * machine dying, too:
 *
 *     all are written beside their names, and synced
 *     the old main file is removed, and the directories synced       from here on there is no main file
 *     the old others that the new set has not are removed, and the new ones get their names; synced
 *     the new main file gets its name; synced
 */
import { rmSync } from 'node:fs';
import { OutputFile, syncDirectory } from './output-file.ts';

export class OutputSet {
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

  /** Makes the set visible. `stale`: files of the set that was there before. */
  async commit(stale: readonly string[]): Promise<void> {
    for (const output of this.#all) await output.seal();
    // From here on nothing waits, so no signal is heard in between.
    const syncAll = () => new Set(this.#all.map(({ directory }) => directory)).forEach(syncDirectory);
    this.main.removeOld();
    syncAll();
    for (const path of stale) rmSync(path, { force: true });
    for (const output of this.others) output.reveal();
    syncAll();
    this.main.reveal();
    syncAll();
  }

  /** Removes what there is of it. */
  async abandon(): Promise<void> {
    for (const output of this.#all) await output.abandon();
  }

  get #all(): readonly OutputFile[] {
    return [this.main, ...this.others];
  }
}
