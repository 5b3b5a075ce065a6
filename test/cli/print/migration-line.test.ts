import { expect, it } from 'vitest';
import { migrationLine } from '../../../src/cli/print/migration-line.ts';
import type { RamProgress } from '../../../src/migrate/progress.ts';

const [MiB, page] = [2 ** 20, 4096];
const ram: RamProgress = {
  ...{ transferred: 300 * MiB, remaining: 1024 * MiB, total: 2048 * MiB, duplicate: 0, normal: 0, 'normal-bytes': 0 },
  ...{ 'page-size': page, 'dirty-sync-count': 1, 'multifd-bytes': 0 },
  ...{ mbps: (100 * MiB * 8) / 1e6, 'pages-per-second': (128 * MiB) / page },
};
const line = (verb: 'receive' | 'send' | 'resume', changes: Partial<RamProgress> = {}, columns = 200) =>
  migrationLine(verb, { status: 'active', 'total-time': 1, ram: { ...ram, ...changes } }, columns);

it('shows what is known in the first pass', () => {
  expect(migrationLine('send', { status: 'setup', 'total-time': 0 }, 80)).toBe('send: setup');
  expect(line('send')).toBe('send: active, pass 1, 300 MiB sent, 100 MiB/s, 1 GiB of 2 GiB left, ~8 s to go');
  expect(line('receive')).toBe('receive: active, pass 1, 300 MiB received, 100 MiB/s, 1 GiB of 2 GiB left, ~8 s to go');
});

it('shows what a guest has asked for, if its pages are served', () => {
  expect(line('resume', { 'postcopy-requests': 17 })).toMatch(/^resume: active, 17 faults, 300 MiB sent, /);
});

it('marks what a destination estimates, and takes what is dirtied off the rate', () => {
  const later = { remaining: 64 * MiB, 'dirty-sync-count': 3, 'dirty-pages-rate': (96 * MiB) / page };
  expect(line('receive', later)).toBe(
    'receive: active, pass 3, 300 MiB received, 100 MiB/s, ~64 MiB of 2 GiB left, ~96 MiB/s dirtied, ~2 s to go',
  );
  expect(line('send', later)).toContain(', 64 MiB of 2 GiB left, 96 MiB/s dirtied, ~2 s to go');
  expect(line('receive', { ...later, 'dirty-pages-rate': (128 * MiB) / page })).toMatch(/: no end in sight$/);
});

it('leaves out what is unknown, writes long times short, and fits the terminal', () => {
  expect(line('receive', { remaining: 0 })).toBe('receive: active, pass 1, 300 MiB received, 100 MiB/s');
  expect(line('send', { 'pages-per-second': 0 })).toMatch(/left$/);
  expect(line('send', { 'pages-per-second': 256 })).toMatch(/~17 min to go$/);
  expect(line('send', { 'pages-per-second': 16 })).toMatch(/~5 h to go$/);
  expect(line('send', {}, 20)).toBe('send: active, pass 1');
  const completed = migrationLine('receive', { status: 'completed', 'total-time': 1, ram }, 200);
  expect(completed).toBe('receive: completed, pass 1, 300 MiB received, 100 MiB/s');
});
