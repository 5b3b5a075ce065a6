import { expect, it } from 'vitest';
import { sortMultifd } from '../../src/file/multifd-set.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { channelHello, none } from '../oracle/build.ts';

const file = (name: string, bytes: Uint8Array) => new MemoryFile(name, bytes);
const sort = (...files: MemoryFile[]) => sortMultifd(files, (each) => each);
const [main, one, two] = [file('main', none), file('one', channelHello(0)), file('two', channelHello(1))];

it('tells the main stream from its channels, in whatever order they come', async () => {
  expect(await sort(two, main, one)).toEqual({ main, channels: [two, one] });
  expect(await sort(main)).toEqual({ main, channels: [] });
});

it('takes a file that is alone for what it is', async () => {
  // The reader says what is wrong with it.
  expect(await sort(one)).toEqual({ main: one, channels: [] });
  expect(await sort(file('empty', new Uint8Array()))).toMatchObject({ channels: [] });
});

it('refuses files that are no set', async () => {
  await expect(sort(main, file('other', none), one)).rejects.toThrow(
    'expected one file, or the main stream of a multifd migration with its channels, got main, other',
  );
  await expect(sort(one, two)).rejects.toThrow('got 2 channels without it');
  await expect(sort()).rejects.toThrow(RangeError);
});
