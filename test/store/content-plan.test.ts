import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type ContentPlan, MemoryFile, openRamContent, openSavedVm, planContent } from '../../src/index.ts';
import { open } from '../../src/node.ts';
import { deltaPage, EOF, EOS, filled, hex, join, none, normalPage, part, ramEnd, ramStart } from '../oracle/build.ts';
import { opened } from '../support/opened.ts';
import { mappedRamFile } from '../wire/mapped-ram-file.ts';

const stream = (...records: Uint8Array[]) => join(none, ramStart, part(7, ...records, EOS), ramEnd, EOF);
const whole = stream(normalPage(0, filled(1), 'ram'));
const withDelta = stream(normalPage(0, filled(1), 'ram'), deltaPage(0, hex('050111')));
const makeScratch = () => new MemoryFile('scratch');

const notOnce = 'the input can be read only once: it is a pipe, or compressed';
const inPlace: ContentPlan = { how: 'in-place', reason: 'a mapped-ram file has each page at its place' };

describe('the plan for the content of', () => {
  it.each([
    ['a mapped-ram file', mappedRamFile(), 'file', inPlace],
    ['a mapped-ram file in a pipe', mappedRamFile(), 'pipe', { how: 'scratch', reason: notOnce }],
    [
      'a stream',
      whole,
      'file',
      { how: 'index', reason: 'a stream may have each page as a whole page', otherwise: 'scratch' },
    ],
    ['a stream in a pipe', whole, 'pipe', { how: 'scratch', reason: notOnce }],
    ['a compressed stream', new Uint8Array(gzipSync(whole)), 'file', { how: 'scratch', reason: notOnce }],
  ] as const)('%s', async (_, bytes, kind, plan) => {
    expect(planContent(await opened(bytes, kind))).toEqual(plan);
  });

  it('a multifd set, and a migration in several files', async () => {
    const parts = { channels: [new Uint8Array(100)] };
    expect(planContent(await open(whole, parts))).toEqual({
      how: 'index',
      reason: 'multifd channels may have each page as a whole page',
      otherwise: 'scratch',
    });
    for (const others of [{ preempt: new Uint8Array(100) }, { resumeOf: whole }]) {
      expect(planContent(await open(whole, others))).toEqual({
        how: 'scratch',
        reason: 'the pages are in several files',
      });
    }
  });

  it('a stream on a server, and a mapped-ram file there', async () => {
    const remote = (bytes: Uint8Array) => open(Object.assign(new MemoryFile('remote', bytes), { willRead() {} }));
    expect(planContent(await remote(whole))).toEqual({
      how: 'scratch',
      reason: 'the input is on a server, and is fetched only once',
    });
    expect(planContent(await remote(mappedRamFile()))).toEqual(inPlace);
  });

  it('a range of it, small or large, and an output that takes pages in any order', async () => {
    const file = await opened(whole);
    const limit = 16 << 20;
    expect(planContent(file, { rangeBytes: limit })).toEqual({
      how: 'memory',
      reason: 'the range has at most 16 MiB',
    });
    expect(planContent(file, { rangeBytes: limit + 1 })).toEqual({
      how: 'scratch',
      reason: 'the range has more than 16 MiB',
    });
    expect(planContent(await opened(mappedRamFile()), { rangeBytes: 1 })).toEqual(inPlace);
    expect(planContent(file, { toOutput: true }).how).toBe('output');
  });

  it('unreadable bytes leaves the error to the reading', async () => {
    expect(planContent(await opened(hex('00'))).how).toBe('index');
  });
});

describe('a plan', () => {
  it('gives the reason why a stream could not be indexed', async () => {
    for (const bytes of [whole, withDelta]) {
      expect((await openSavedVm(await opened(bytes), { makeScratch })).plan).toMatchObject({ how: 'index' });
    }
    const main = new Uint8Array(readFileSync('test/fixtures/pc-multifd-zlib-7.2.bin'));
    const channels = [0, 1].map(
      (i) => new Uint8Array(readFileSync(`test/fixtures/pc-multifd-zlib-7.2.channel-${i}.bin`)),
    );
    expect((await openSavedVm(await open(main, { channels }), { makeScratch })).plan).toEqual({
      how: 'scratch',
      reason: 'the channels are compressed',
    });
  });

  it('is noted when content is opened, and is plain data', async () => {
    const plans: ContentPlan[] = [];
    await openRamContent(await opened(mappedRamFile()), { makeScratch, notePlan: (plan) => plans.push(plan) });
    expect(JSON.parse(JSON.stringify(plans))).toEqual([inPlace]);
  });

  it('says so for a fixture with compressed pages', async () => {
    const file = await open(new Uint8Array(readFileSync('test/fixtures/pc-compress-7.2.bin')));
    expect((await openSavedVm(file, { makeScratch })).plan).toEqual({
      how: 'scratch',
      reason: 'the stream has compressed pages',
    });
  });
});
