import { execFileSync } from 'node:child_process';
import { openSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { open as openHandle } from 'node:fs/promises';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readFully } from '../../../src/io/byte-source.ts';
import { NodeFile, openSource } from '../../../src/io/node/file.ts';
import { makeDirectory } from './directory.ts';

const directory = makeDirectory();
const sample = Uint8Array.from({ length: 100_000 }, (_, i) => (i ^ (i >> 8)) & 0xff);

function makeFifo(name: string): string {
  const path = directory.at(name);
  execFileSync('mkfifo', [path]);
  return path;
}

/** Opens the writing end of a FIFO without blocking this thread. */
const writerOf = (path: string) => openHandle(path, 'w');

describe('opening a source', () => {
  it('gives random access to a file', async () => {
    const path = directory.at('file');
    writeFileSync(path, sample);
    const source = await openSource(path);
    expect([source.size, source.name]).toEqual([100_000, path]);
    const target = new Uint8Array(10);
    for (const position of [99_995, 0, 50_000]) {
      const count = await source.read(target, position);
      expect(target.subarray(0, count)).toEqual(sample.subarray(position, position + 10));
    }
    expect(await source.read(target, 100_000)).toBe(0);
    await source.close();
    await source.close();
  });

  it('waits for the writer of a FIFO and reads it forward', async () => {
    const path = makeFifo('fifo');
    const opening = openSource(path);
    const writer = await writerOf(path);
    const source = await opening;
    expect([source.size, source.name]).toEqual([undefined, path]);
    const writing = (async () => {
      for (let at = 0; at < sample.length; at += 9999) await writer.write(sample.subarray(at, at + 9999));
      await writer.close();
    })();
    const target = new Uint8Array(sample.length + 1);
    let at = 0;
    for (;;) {
      const count = await source.read(target.subarray(at), at);
      if (count === 0) break;
      at += count;
    }
    await writing;
    expect(at).toBe(sample.length);
    expect(Buffer.compare(target.subarray(0, at), sample)).toBe(0);
    await source.close();
  });

  it('can close a FIFO that is still being written', async () => {
    const path = makeFifo('endless');
    const opening = openSource(path);
    const writer = await writerOf(path);
    const source = await opening;
    await writer.write(sample.subarray(0, 100));
    const target = new Uint8Array(100);
    expect(await source.read(target, 0)).toBe(100);
    await source.close();
    await expect(writer.write(sample)).rejects.toThrow(/EPIPE/);
    await writer.close();
  });

  it('reads a character device forward', async () => {
    const source = await openSource('/dev/zero');
    const target = new Uint8Array(1000).fill(1);
    await readFully(source, target, 0);
    expect(target.every((byte) => byte === 0)).toBe(true);
    expect(source.size).toBeUndefined();
    await source.close();
  });

  it('reads nothing from /dev/null', async () => {
    const source = await openSource('/dev/null');
    expect(await source.read(new Uint8Array(10), 0)).toBe(0);
    await source.close();
  });

  it.each([
    ['a missing file', () => directory.at('missing'), 'ENOENT'],
    ['a directory', () => directory.path, 'EISDIR'],
  ])('fails for %s and leaves nothing open', async (_, path, code) => {
    await expect(openSource(path())).rejects.toMatchObject({ code });
    expect(openPaths()).not.toContain(path());
  });
});

/** The file descriptors that this process has open. */
const openPaths = () =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });
execFileSync('ls', [`/proc/${process.pid}/fd`])
  .toString()
  .split('\n').length;

describe('a Node file', () => {
  const make = (name: string) => new NodeFile(openSync(directory.at(name), 'w+'), name, 0);

  it('behaves like an array of bytes: writes anywhere and truncates, with holes of zeros', async () => {
    const change = fc.oneof(
      fc.record({
        kind: fc.constant('write' as const),
        position: fc.nat(50_000),
        length: fc.integer({ min: 1, max: 20_000 }),
      }),
      fc.record({ kind: fc.constant('truncate' as const), position: fc.nat(50_000) }),
    );
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 8 }), async (changes) => {
        const file = make(`model-${run++}`);
        let model = new Uint8Array();
        const resize = (size: number) => {
          const next = new Uint8Array(size);
          next.set(model.subarray(0, size));
          model = next;
        };
        for (const [i, each] of changes.entries()) {
          if (each.kind === 'truncate') {
            file.truncate(each.position);
            resize(each.position);
          } else {
            file.write(new Uint8Array(each.length).fill(i + 1), each.position);
            resize(Math.max(model.length, each.position + each.length));
            model.fill(i + 1, each.position, each.position + each.length);
          }
          expect(file.size).toBe(model.length);
        }
        const whole = new Uint8Array(model.length + 10);
        expect(await file.read(whole, 0)).toBe(model.length);
        expect(Buffer.compare(whole.subarray(0, model.length), model)).toBe(0);
        await file.sync();
        await file.close();
        expect(Buffer.compare(readFileSync(directory.at(file.name)), model)).toBe(0);
      }),
      { numRuns: 40 },
    );
  });

  it('keeps holes', async () => {
    const file = make('sparse');
    file.write(Uint8Array.of(1), 1 << 30);
    file.truncate(2 ** 31);
    await file.close();
    const stat = statSync(directory.at('sparse'));
    expect(stat.size).toBe(2 ** 31);
    expect(stat.blocks * 512).toBeLessThan(1 << 20);
  });

  it('does not grow from an empty write', async () => {
    const file = make('empty');
    file.write(new Uint8Array(), 100);
    expect(file.size).toBe(0);
    await file.close();
  });
});
