import { expect, it } from 'vitest';
import { entropyOf } from '../../../src/tasks/estimate/page-entropy.ts';

it('is 0 bits for one byte, 1 for two equally frequent ones, 8 for all', () => {
  expect(entropyOf(new Uint8Array(4096).fill(7), 0, 4096)).toBe(0);
  expect(
    entropyOf(
      Uint8Array.from({ length: 4096 }, (_, i) => i & 1),
      0,
      4096,
    ),
  ).toBe(1);
  expect(
    entropyOf(
      Uint8Array.from({ length: 4096 }, (_, i) => i),
      0,
      4096,
    ),
  ).toBe(8);
});

it('uses only the given bytes', () => {
  const bytes = new Uint8Array(3 * 1024);
  bytes.subarray(1024, 2048).forEach((_, i, page) => {
    page[i] = i & 3;
  });
  expect([0, 1024, 2048].map((from) => entropyOf(bytes, from, 1024))).toEqual([0, 2, 0]);
});
