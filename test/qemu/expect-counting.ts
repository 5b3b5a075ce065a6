import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Guest } from './guest.ts';

/** Expects that a guest that is dirtying counts on, from at least `from` rounds. */
export async function expectCounting(guest: Guest, from: number): Promise<void> {
  const first = await guest.count();
  expect(first).toBeGreaterThanOrEqual(from);
  while ((await guest.count()) === first) await sleep(5);
  expect(await guest.stop()).toBeGreaterThan(first);
}
