/** Gives each test file its own directory, removed at the end. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

export function makeDirectory(): { path: string; at(name: string): string } {
  const path = mkdtempSync(join(tmpdir(), 'vmferry-test-'));
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  return { path, at: (name) => join(path, name) };
}
