import { describe, expect, it } from 'vitest';
import { progressLine } from '../../../src/cli/print/progress-line.ts';

const line = (name: string, columns: number) =>
  progressLine('verify', { reached: 2 ** 29, size: 2 ** 30, source: { name } }, 1000, columns);

describe('the progress line', () => {
  it('shows the whole path where it fits', () => {
    expect(line('/a/guest.migration', 79)).toBe(
      'verify /a/guest.migration: 512 MiB of 1 GiB, 50 %, 512 MiB/s, 1 s left',
    );
    expect(progressLine('verify', { reached: 2 ** 29, size: undefined, source: { name: 'pipe' } }, 1000, 79)).toBe(
      'verify pipe: 512 MiB, 512 MiB/s',
    );
  });

  it('cuts a long path in the middle, and keeps the name of the file and the figures', () => {
    const path = `/var/lib/${'libvirt/'.repeat(20)}save/guest.migration`;
    expect(line(path, 79)).toBe('verify /var/lib/l…/guest.migration: 512 MiB of 1 GiB, 50 %, 512 MiB/s, 1 s left');
    expect(line(path, 79)).toHaveLength(79);
  });

  it('cuts a long name at its beginning', () => {
    const name = `/x/${'a'.repeat(200)}-end.migration`;
    expect(line(name, 79)).toMatch(/^verify …a+-end\.migration: 512 MiB of 1 GiB, 50 %, 512 MiB\/s, 1 s left$/);
    expect(line(name, 79)).toHaveLength(79);
  });

  it('never exceeds the terminal', () => {
    for (let columns = 1; columns < 120; columns++) {
      for (const name of ['a', '/tmp/guest', 'x'.repeat(300), `/${'d/'.repeat(90)}guest`]) {
        expect(line(name, columns).length).toBeLessThanOrEqual(columns);
      }
    }
  });
});
