import { describe, expect, it } from 'vitest';
import { type ByteSource, inspect, open, StreamSource } from '../../src/index.ts';
import { EOF, hex, join, none, ramEnd, ramStart } from '../oracle/build.ts';
import { kindsOfSource, opened } from '../support/opened.ts';
import { mappedRamFile } from '../wire/mapped-ram-file.ts';

const header = hex('5145564d 00000003');
const stream = join(none, ramStart, ramEnd, EOF);
const configuration = (...subsections: (Uint8Array | string)[]) =>
  join(header, hex('07 00000004'), 'none', ...subsections, ramStart, ramEnd, EOF);
/** A uuid, repeated until the configuration is long enough. */
const uuid = join(hex('05 12'), 'configuration/uuid', hex('00000001'), new Uint8Array(16));

describe.each(kindsOfSource)('the format of a %s', (kind) => {
  it.each([
    ['a stream', stream, 'stream'],
    ['a stream without a configuration', join(header, EOF), 'stream'],
    ['a mapped-ram file', mappedRamFile(), 'mapped-ram'],
    ['a configuration of more than 4 KiB', configuration(...Array(150).fill(uuid)), 'stream'],
    ['a cut configuration', stream.subarray(0, 12), undefined],
    ['a configuration without an end', configuration(...Array(5000).fill(uuid)), undefined],
    ['another version', hex('5145564d 00000002 00'), undefined],
    ['a header alone', header, undefined],
    ['garbage', hex('0102030405060708090a'), undefined],
    ['nothing', new Uint8Array(), undefined],
  ])('that holds %s', async (_, bytes, format) => {
    expect((await opened(bytes, kind)).format).toBe(format);
  });

  it('is found without losing a byte', async () => {
    const { inspection } = await inspect(await opened(mappedRamFile(), kind));
    expect(inspection).toMatchObject({ format: 'mapped-ram', error: undefined, complete: true });
  });
});

describe('the format of a pipe', () => {
  it('is found once the configuration has arrived, without waiting for more', async () => {
    async function* chunks() {
      yield stream.subarray(0, 60);
      await new Promise(() => {});
    }
    expect((await open(new StreamSource(chunks(), 'pipe'))).format).toBe('stream');
  });

  it('stays undefined if reading fails, and reading reports the failure', async () => {
    async function* chunks() {
      yield stream.subarray(0, 12);
      throw new Error('connection reset');
    }
    const file = await open(new StreamSource(chunks(), 'pipe'));
    expect(file.format).toBeUndefined();
    await expect(inspect(file)).rejects.toThrow('connection reset');
  });
});

describe('the format of a file', () => {
  it('takes one short read', async () => {
    const bytes = join(mappedRamFile());
    const reads: [number, number][] = [];
    const source: ByteSource = {
      name: 'counted',
      size: bytes.length,
      read(target, position) {
        reads.push([position, target.length]);
        const piece = bytes.subarray(position, position + target.length);
        target.set(piece);
        return piece.length;
      },
      close: async () => {},
    };
    await open(source);
    expect(reads).toEqual([
      [0, 16],
      [0, 4096],
    ]);
  });
});
