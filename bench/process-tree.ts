/** The CPU time of a process and all its descendants on Linux, such as those of a browser. */
import { readdirSync, readFileSync } from 'node:fs';

/** Clock ticks per second in /proc, on every Linux that Node supports. */
const ticksPerSecond = 100;

interface Times {
  parent: number;
  /** Ticks of the process, and of its children that have ended. */
  ticks: number;
}

function readTimes(pid: number): Times | undefined {
  try {
    // The name of the program, in parentheses, may contain spaces.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
    const [, parent] = fields;
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
    return { parent: Number(parent), ticks };
  } catch {
    // The process has ended.
    return undefined;
  }
}

/** CPU seconds of the descendants of this process, without the process itself. */
export function cpuOfDescendants(): number {
  const all = new Map<number, Times>();
  for (const name of readdirSync('/proc')) {
    const times = /^\d+$/.test(name) ? readTimes(Number(name)) : undefined;
    if (times !== undefined) all.set(Number(name), times);
  }
  const isDescendant = (pid: number): boolean => {
    const parent = all.get(pid)?.parent;
    return parent !== undefined && parent !== 0 && (parent === process.pid || isDescendant(parent));
  };
  let ticks = 0;
  for (const [pid, times] of all) if (isDescendant(pid)) ticks += times.ticks;
  return ticks / ticksPerSecond;
}
