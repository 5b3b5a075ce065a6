/** Runs whole processes in turns, with their files in the page cache. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Row, rowOf } from './measure.ts';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** A way to do a job: a shell command, run in a directory of its own. */
export interface Command {
  name: string;
  line: string;
}

export const vmferry = (line: string): Command => ({ name: 'ours', line: `'${process.execPath}' '${cli}' ${line}` });

export const cat = (files: string[]): Command => ({ name: 'cat', line: `cat ${files.join(' ')} > /dev/null` });

export const copy = (file: string): Command => ({
  name: 'cp --sparse=always + sync',
  line: `cp --sparse=always '${file}' copy && sync copy`,
});

/** Seconds that a command takes in a temporary directory below `where`. Removes what the command wrote. */
export function time({ name, line }: Command, where: string): number {
  const cwd = mkdtempSync(join(where, 'vmferry-run-'));
  const start = process.hrtime.bigint();
  const { status, stderr } = spawnSync('/bin/sh', ['-c', line], { cwd, encoding: 'utf8', maxBuffer: 1 << 30 });
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  rmSync(cwd, { recursive: true, force: true });
  if (status !== 0) throw new Error(`${name}: ${line}: exit status ${status}\n${stderr.slice(-2000)}`);
  return seconds;
}

/** A way to do a job, with a fixed time of `seconds`. */
export interface Timed {
  name: string;
  seconds: () => number | Promise<number>;
}

/** Compares ours, the first, with its peers in turns; speeds in GB/s of `bytes`. */
export async function compareInTurns(
  job: string,
  bytes: number,
  ways: readonly Timed[],
  rounds: number,
): Promise<Row[]> {
  const speeds: number[][] = ways.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < ways.length; i++) {
      const way = (i + round) % ways.length;
      speeds[way]?.push(bytes / (await (ways[way] as Timed).seconds()) / 1e9);
    }
  }
  const [ours = [], ...theirs] = speeds;
  return theirs.map((peer, i) => rowOf(`${job} / ${ways[i + 1]?.name}`, ours, peer));
}

/** Compares commands on a file; they write below `where`. */
export function compareCommands(
  job: string,
  file: string,
  commands: readonly Command[],
  rounds: number,
  where: string,
): Promise<Row[]> {
  time(cat([file]), where);
  const ways = commands.map((command) => ({ name: command.name, seconds: () => time(command, where) }));
  return compareInTurns(job, statSync(file).size, ways, rounds);
}
