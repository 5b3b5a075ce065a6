/** Waits for states that QEMU and its children do not announce by an event. */
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { hangGuardMs } from '../limits.ts';

/** Interval between two looks. */
const pollMs = 10;

/** Waits until `holds`. @throws after `timeout` ms; `what` names the state */
export async function waitUntil(
  what: string,
  holds: () => boolean | Promise<boolean>,
  timeout = hangGuardMs,
): Promise<void> {
  for (const until = performance.now() + timeout; !(await holds()); await sleep(pollMs)) {
    if (performance.now() > until) throw new Error(`${what}: still waiting after ${timeout} ms`);
  }
}

/** Waits until a file exists. A stream by `exec:` gets its final name after QEMU reports completion. */
export const waitForFile = (path: string): Promise<void> => waitUntil(`${path} exists`, () => existsSync(path));
