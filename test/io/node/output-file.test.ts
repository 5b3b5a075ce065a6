import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  isReplaceable,
  OutputFile,
  openScratch,
  removeUnfinished,
  watchDirectory,
} from '../../../src/io/node/output-file.ts';
import { makeDirectory } from './directory.ts';

const directory = makeDirectory();
/** An empty directory for each test. */
let made = 0;
function emptyDirectory(): string {
  const path = directory.at(`case-${made++}`);
  mkdirSync(path);
  return path;
}
const content = (text: string) => new TextEncoder().encode(text);

describe('an output file', () => {
  it('appears only when committed, complete and accessible only to its owner', async () => {
    const parent = emptyDirectory();
    const path = join(parent, 'out.raw');
    const output = new OutputFile(path);
    output.file.write(content('half'), 0);
    expect(existsSync(path)).toBe(false);
    output.file.write(content('whole'), 4);
    await output.commit();
    expect(readFileSync(path, 'utf8')).toBe('halfwhole');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(parent)).toEqual(['out.raw']);
  });

  it('leaves nothing when abandoned, even twice', async () => {
    const parent = emptyDirectory();
    const output = new OutputFile(join(parent, 'out.raw'));
    output.file.write(content('half'), 0);
    expect(readdirSync(parent)).toHaveLength(1);
    await output.abandon();
    expect(readdirSync(parent)).toEqual([]);
    await output.abandon();
  });

  it('replaces the old file on commit, not before', async () => {
    const path = join(emptyDirectory(), 'out.raw');
    writeFileSync(path, 'old');
    const output = new OutputFile(path);
    output.file.write(content('new'), 0);
    expect(readFileSync(path, 'utf8')).toBe('old');
    await output.commit();
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  it('keeps the old file when abandoned', async () => {
    const path = join(emptyDirectory(), 'out.raw');
    writeFileSync(path, 'old');
    const output = new OutputFile(path);
    output.file.write(content('new'), 0);
    await output.abandon();
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  it('is unaffected by an abandon after the commit', async () => {
    const path = join(emptyDirectory(), 'out.raw');
    const output = new OutputFile(path);
    output.file.write(content('new'), 0);
    await output.commit();
    await output.abandon();
    removeUnfinished();
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  it('can be abandoned after a failed commit', async () => {
    const parent = emptyDirectory();
    const path = join(parent, 'taken');
    mkdirSync(join(path, 'full'), { recursive: true });
    const output = new OutputFile(path);
    await expect(output.commit()).rejects.toThrow();
    await output.abandon();
    expect(readdirSync(parent)).toEqual(['taken']);
  });

  it('fails at once if nothing can be written', () => {
    expect(() => new OutputFile(join(directory.path, 'missing', 'out.raw'))).toThrow(
      expect.objectContaining({ code: 'ENOENT' }),
    );
  });

  it('does not disturb another output for the same path', async () => {
    const path = join(emptyDirectory(), 'out.raw');
    const [first, second] = [new OutputFile(path), new OutputFile(path)];
    first.file.write(content('first'), 0);
    second.file.write(content('second'), 0);
    await second.commit();
    await first.abandon();
    expect(readFileSync(path, 'utf8')).toBe('second');
  });
});

describe('removing unfinished output', () => {
  it('removes open outputs and empty directories, and keeps complete files', async () => {
    const parent = emptyDirectory();
    const finished = new OutputFile(join(parent, 'finished'));
    await finished.commit();
    const open = new OutputFile(join(parent, 'open'));
    const [empty, used, kept] = ['empty', 'used', 'kept'].map((name) => join(parent, name)) as [string, string, string];
    for (const path of [empty, used, kept]) mkdirSync(path);
    writeFileSync(join(used, 'file'), '');
    watchDirectory(empty);
    watchDirectory(used);
    watchDirectory(kept).keep();
    removeUnfinished();
    expect(readdirSync(parent).sort()).toEqual(['finished', 'kept', 'used']);
    await open.abandon();
  });

  it('removes an output in a watched directory, then the directory', () => {
    const parent = emptyDirectory();
    const path = join(parent, 'made');
    mkdirSync(path);
    watchDirectory(path);
    new OutputFile(join(path, 'out.raw'));
    removeUnfinished();
    expect(readdirSync(parent)).toEqual([]);
  });
});

describe('a scratch file', () => {
  it('has no name, so nothing remains whatever happens', async () => {
    const parent = emptyDirectory();
    const scratch = openScratch(parent);
    expect(readdirSync(parent)).toEqual([]);
    scratch.write(content('kept while open'), 1 << 20);
    const target = new Uint8Array(4);
    expect(await scratch.read(target, 1 << 20)).toBe(4);
    expect(Buffer.from(target).toString()).toBe('kept');
    expect(readlinkSync(`/proc/self/fd/${scratch.fd}`)).toMatch(/\(deleted\)$/);
    await scratch.close();
  });
});

describe('whether a path can be replaced', () => {
  it('is true for absent and regular files, false for directories, FIFOs and devices', () => {
    const parent = emptyDirectory();
    writeFileSync(join(parent, 'file'), '');
    execFileSync('mkfifo', [join(parent, 'fifo')]);
    expect([join(parent, 'file'), join(parent, 'missing')].map(isReplaceable)).toEqual([true, true]);
    expect([parent, join(parent, 'fifo'), '/dev/null'].map(isReplaceable)).toEqual([false, false, false]);
  });
});
