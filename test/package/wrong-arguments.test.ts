/** Functions that take an open file say what they expect when they are called wrongly. */
import { describe, expect, it } from 'vitest';
import * as vmferry from '../../src/index.ts';
import { open } from '../../src/node.ts';
import { fixturePath } from '../fixture-files.ts';

type Call = (...args: unknown[]) => unknown;
const call = async (name: string, ...args: unknown[]) => (vmferry as unknown as Record<string, Call>)[name]?.(...args);
const file = () => open(fixturePath('pc-plain-10.0.bin'));
const makeScratch = () => new vmferry.MemoryFile();
const sink = { write() {} };

const takesFile = [
  ...['inspect', 'verify', 'check', 'settle', 'diff', 'estimate', 'openSavedVm', 'openRange', 'readRam', 'readDevices'],
  ...[
    'convertToStream',
    'convertToMultifd',
    'convertToMappedRam',
    'convertToChanges',
    'mergeToStream',
    'mergeToMappedRam',
  ],
  ...['openMerged', 'openPhysical', 'extractBlocks', 'readFacts', 'encodeFlow'],
];

describe('a function that is called with wrong arguments', () => {
  it.each(takesFile)('%s refuses everything but an open file', async (name) => {
    for (const wrong of [undefined, null, 'guest.migration', 7, {}, new Uint8Array(4)]) {
      const options = { makeScratch, codecs: {}, clock: () => 0 };
      await expect(call(name, wrong, wrong, options, options), String(wrong)).rejects.toThrow(/^expected /);
      await expect(call(name, wrong, wrong, options, options), String(wrong)).rejects.toThrow(TypeError);
    }
  });

  it.each<[string, unknown[], RegExp]>([
    ['convertToStream', [sink], /expected an object with options as the last argument, got undefined/],
    ['convertToStream', [undefined, { makeScratch }], /expected a ByteSink, got undefined/],
    ['convertToStream', ['out.stream', { makeScratch }], /expected a ByteSink, got string without write/],
    [
      'convertToStream',
      [sink, { makeScratch, base: 'x' }],
      /expected a file that open\(\) returned, got the string "x"/,
    ],
    ['convertToMappedRam', ['out'], /expected an output with the methods read and write, got the string "out"/],
    ['convertToMappedRam', [sink], /methods read and write, got a plain object/],
    ['convertToMultifd', [sink, ['x'], { makeScratch }], /expected a ByteSink, got string without write/],
    ['settle', [], /expected a sink with the method take, got undefined/],
    ['openSavedVm', [], /expected an object with options as the last argument, got undefined/],
    ['estimate', [], /expected an object with options as the last argument, got undefined/],
    ['diff', [undefined, { makeScratch }], /expected a file that open\(\) returned, got undefined/],
  ])('%s(file, …) says what is expected', async (name, args, message) => {
    const opened = await file();
    await expect(call(name, opened, ...args)).rejects.toThrow(message);
    await expect(call(name, opened, ...args)).rejects.toThrow(TypeError);
    await opened.close();
  });
});
