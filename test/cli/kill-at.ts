/** Kills a command once it has written a given number of bytes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { cliPath, signalOnce } from '../run-cli.ts';

/** The sizes of all files in a folder. Files may vanish meanwhile. */
export function bytesIn(folder: string): number {
  const sizeOf = (name: string) => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
  return readdirSync(folder).reduce((sum, name) => sum + sizeOf(name), 0);
}

/** Runs `vmferry` and kills it when the files in `folder` have grown by more than `bytes`. Returns the ended process. */
export async function killAt(bytes: number, folder: string, args: readonly string[]): Promise<ChildProcess> {
  const before = bytesIn(folder);
  const child = spawn(process.execPath, [cliPath, ...args], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  await signalOnce(child, { signal: 'SIGKILL', once: () => bytesIn(folder) > before + bytes });
  await exited;
  return child;
}
