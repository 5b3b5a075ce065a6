import { expect } from 'vitest';
import type { Guest } from './guest.ts';
import { waitUntil } from './wait-until.ts';

/** Expects a dirtying guest to continue counting, from at least `from` rounds. */
export async function expectCounting(guest: Guest, from: number): Promise<void> {
  const first = await guest.count();
  expect(first).toBeGreaterThanOrEqual(from);
  await waitUntil('the guest counts', async () => (await guest.count()) > first);
  expect(await guest.stop()).toBeGreaterThan(first);
}
