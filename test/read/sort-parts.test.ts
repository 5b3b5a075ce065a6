import { expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { arrangeParts, findPartKind, sortParts, UnclearPartsError } from '../../src/read/sort-parts.ts';
import { loadContainerFixtures } from '../container-fixtures.ts';
import { loadFixtures, loadPartedFixtures } from '../fixture-files.ts';
import { channelHello, none } from '../oracle/build.ts';

const file = (name: string, bytes: Uint8Array) => new MemoryFile(name, bytes);
const sort = (...files: MemoryFile[]) => sortParts(files, (each) => each);
const [main, one, two] = [file('main', none), file('one', channelHello(0)), file('two', channelHello(1))];
const nothing = { channels: [], resumeOf: [], preempt: [], returnPath: [] };
const parted = (name: string) => {
  const found = loadPartedFixtures().find((each) => each.name === name);
  if (found === undefined) throw new Error(`there is no fixture ${name}`);
  const all = (kind: 'resumeOf' | 'preempt' | 'returnPath') =>
    found[kind].map((bytes, i) => file(found.paths[kind][i] as string, bytes));
  const list = { resumeOf: all('resumeOf'), preempt: all('preempt'), returnPath: all('returnPath') };
  return { main: file(found.path, found.bytes), ...list };
};

async function unclear(...files: MemoryFile[]) {
  const error = await sort(...files).catch((caught) => caught);
  expect(error).toBeInstanceOf(UnclearPartsError);
  return (error as UnclearPartsError).parts.map(({ index, kind, role }) => [files[index], kind, role]);
}

it('tells the main stream from its channels, in any order', async () => {
  expect(await sort(two, main, one)).toEqual({ main, parts: { ...nothing, channels: [one, two] } });
  expect(await sort(main)).toEqual({ main, parts: nothing });
});

it('accepts a single file as it is', async () => {
  // The reader reports what is wrong with it.
  expect(await sort(one)).toEqual({ main: one, parts: nothing });
  expect(await sort(file('empty', new Uint8Array()))).toMatchObject({ parts: nothing });
});

it('takes the only unknown file of several as the stream', async () => {
  const packed = file('z-packed', Uint8Array.of(1, 2, 3));
  expect(await sort(one, packed)).toEqual({ main: packed, parts: { ...nothing, channels: [one] } });
});

it.each(['pc-preempt-7.2', 'pc-preempt-10.0', 'pc-recovery-10.0'])('puts the files of %s together', async (name) => {
  const { main, resumeOf, preempt, returnPath } = parted(name);
  const sorted = await sort(...[...returnPath, ...preempt, main, ...resumeOf].reverse());
  expect(sorted).toEqual({ main, parts: { channels: [], resumeOf, preempt, returnPath } });
});

it('asks for the order of two preempt channels, and suggests the order of their names', async () => {
  const { main, resumeOf, preempt, returnPath } = parted('pc-recovery-7.2');
  expect(await unclear(...[...preempt].reverse(), main, ...resumeOf, ...returnPath)).toEqual([
    [main, 'recovery', 'recovery'],
    [resumeOf[0], 'stream', 'stream'],
    [preempt[0], 'preempt', 'preempt'],
    [preempt[1], 'preempt', 'preempt'],
    [returnPath[0], 'return-path', 'return-path'],
    [returnPath[1], 'return-path', 'return-path'],
  ]);
});

it('asks which of several streams is meant, and sorts numbers in names as numbers', async () => {
  const [second, tenth] = [file('save-2', none), file('save-10', none)];
  expect(await unclear(tenth, second)).toEqual([
    [second, 'stream', 'stream'],
    [tenth, 'stream', 'none'],
  ]);
  const photo = file('a-photo', Uint8Array.of(0xff, 0xd8, 0xff, 0xe0));
  expect(await unclear(main, photo)).toEqual([
    [photo, 'unknown', 'none'],
    [main, 'stream', 'stream'],
  ]);
});

it('refuses files without a stream', async () => {
  await expect(sort(one, two)).rejects.toThrow(
    'expected a migration stream and what belongs to it, got 2 files without it',
  );
  await expect(sort()).rejects.toThrow(RangeError);
});

it('combines files as told: the last recovery is the main file', () => {
  const arranged = arrangeParts(['b', 'x', 'a', 'c'], ['recovery', 'none', 'stream', 'recovery']);
  expect(arranged).toEqual({ main: 'c', parts: { ...nothing, resumeOf: ['a', 'b'] } });
  expect(() => arrangeParts(['a', 'b'], ['stream', 'stream'])).toThrow('expected one file to be the stream, got 2');
  expect(() => arrangeParts(['a'], ['channel'])).toThrow('got 0');
});

it('recognizes every capture by its first bytes', async () => {
  const kindOf = (bytes: Uint8Array) => findPartKind(file('any', bytes));
  for (const { bytes, channels, offset } of loadFixtures()) {
    expect(await kindOf(bytes.subarray(offset))).toBe('stream');
    for (const channel of channels) expect(await kindOf(channel)).toBe('channel');
  }
  for (const { bytes } of loadContainerFixtures()) expect(await kindOf(bytes)).toBe('stream');
  // What 7.2 sends if no pages were requested.
  expect(await kindOf(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0x10))).toBe('preempt');
});

it('recognizes nothing in other first bytes', async () => {
  const kindOf = (...bytes: number[]) => findPartKind(file('any', Uint8Array.from(bytes)));
  expect(await kindOf()).toBe('unknown');
  expect(await kindOf(0, 0, 0)).toBe('unknown');
  // A page record whose name is cut off, missing, or contains control characters.
  expect(await kindOf(0, 0, 0, 0, 0, 0, 0x10, 8)).toBe('unknown');
  expect(await kindOf(0, 0, 0, 0, 0, 0, 0x10, 8, 0)).toBe('unknown');
  expect(await kindOf(0, 0, 0, 0, 0, 0, 0x10, 8, 2, 0x61)).toBe('unknown');
  expect(await kindOf(0, 0, 0, 0, 0, 0, 0x10, 8, 1, 7)).toBe('unknown');
  expect(await kindOf(0, 0, 0, 0, 0, 0, 0x10, 8, 1, 0x61)).toBe('preempt');
  // A message with an impossible length.
  expect(await kindOf(0, 2, 0, 5, 0, 0, 0, 1)).toBe('unknown');
});
