/** The tables of docs/live.md: every scenario that holds names the tests that show it, and these exist. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const root = new URL('../../', import.meta.url);
const rows = readFileSync(new URL('docs/live.md', root), 'utf8')
  .split("## The scenarios of QEMU's own tests")[1]
  ?.split('\n')
  .filter((line) => line.startsWith('| ') && !/^\| (?:---|Scenario|What happens)/.test(line))
  .map((line) => line.slice(2, -2).split(' | '));

test('each scenario that holds names its tests', () => {
  expect(rows?.length).toBeGreaterThan(30);
  for (const row of rows ?? []) {
    const files = row.at(-1) as string;
    const names = [...files.matchAll(/`([a-z-]+)`/g)].map(([, name]) => name);
    if (names.length === 0) {
      expect(files, row[0]).toBe('-');
      expect(row.slice(1, -1).join(), row[0]).toMatch(/^no/);
    }
    for (const name of names) {
      expect(existsSync(new URL(`test/qemu/${name}.test.ts`, root)), `${row[0]}: ${name}`).toBe(true);
    }
  }
});
