/**
 * Preloaded into a process that a test starts. It writes lines of JSON to file descriptor 3: `ready` when the process
 * handles SIGINT, and at its end the CPU time that it took and its peak memory.
 *
 * The peak is VmHWM, which begins anew with each program. `ru_maxrss` does not: a process inherits it from the one that
 * forked it. Where there is no /proc the peak is not known.
 */
import { readFileSync, writeSync } from 'node:fs';

const report = (value) => writeSync(3, `${JSON.stringify(value)}\n`);

function peakMemory() {
  try {
    const [, kibibytes] = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1')) ?? [];
    return kibibytes === undefined ? undefined : Number(kibibytes) * 1024;
  } catch {
    return undefined;
  }
}

process.on('newListener', (event) => {
  // The listener is added after this event.
  if (event === 'SIGINT') setImmediate(() => report({ ready: true }));
});
process.on('exit', () => {
  const { user, system } = process.cpuUsage();
  report({ cpuMs: (user + system) / 1000, peakMemory: peakMemory() });
});
