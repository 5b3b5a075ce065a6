import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { OutputSet } from '../../../src/io/node/output-set.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-set-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => join(folder, name);
const contents = () =>
  Object.fromEntries(
    readdirSync(folder, { withFileTypes: true }).map((entry) => [
      entry.name,
      entry.isFile() ? readFileSync(at(entry.name), 'utf8') : 'a directory',
    ]),
  );
const write = (set: OutputSet) => {
  for (const { file } of [set.main, ...set.others]) file.write(new TextEncoder().encode('new'), 0);
};

describe('a set of files', () => {
  it('replaces the old set on commit, including its extra files', async () => {
    for (const name of ['a', 'a.0', 'a.1', 'a.2', 'b']) writeFileSync(at(name), 'old');
    const set = new OutputSet(at('a'), [at('a.0'), at('a.1')]);
    write(set);
    for (const name of ['a', 'a.0', 'a.1', 'a.2']) expect(contents()[name]).toBe('old');
    await set.commit([at('a.2')]);
    expect(contents()).toEqual({ a: 'new', 'a.0': 'new', 'a.1': 'new', b: 'old' });
  });

  it('keeps the old set when abandoned', async () => {
    for (const name of ['a', 'a.0']) writeFileSync(at(name), 'old');
    const set = new OutputSet(at('a'), [at('a.0')]);
    write(set);
    await set.abandon();
    expect(contents()).toEqual({ a: 'old', 'a.0': 'old' });
  });

  it('has no main file if it stops between the renames', async () => {
    for (const name of ['a', 'a.0', 'a.1']) writeFileSync(at(name), 'old');
    const set = new OutputSet(at('a'), [at('a.0'), at('a.1')]);
    write(set);
    rmSync(at('a.1'));
    mkdirSync(at('a.1'));
    await expect(set.commit([])).rejects.toThrow(/cannot (write|remove) /);
    await set.abandon();
    expect(contents()).toEqual({ 'a.0': 'new', 'a.1': 'a directory' });
  });

  it('leaves nothing if one of its files cannot be written', async () => {
    expect(() => new OutputSet(at('a'), [at('a.0'), at('nowhere/a.1')])).toThrow(
      /the directory .*nowhere does not exist/,
    );
    await expect.poll(contents).toEqual({});
  });
});
