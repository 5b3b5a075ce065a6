/** Streams inside other files, as real libvirt and QEMU wrote them, and the reports on damaged ones. */
import { createHash } from 'node:crypto';
import * as zlib from 'node:zlib';
import { describe, expect, it } from 'vitest';
import {
  type FindingCode,
  inspect,
  MemoryFile,
  type MigrationFile,
  type OpenOptions,
  open as openPortable,
  SnapshotError,
  StreamSource,
  verify,
} from '../../../src/index.ts';
import { nodeDecompress, open } from '../../../src/node.ts';
import { encodeLibvirtHead } from '../../../src/read/container/libvirt-header.ts';
import { MappedRamStore } from '../../../src/store/mapped-ram-store.ts';
import { loadContainerFixture, loadContainerFixtures } from '../../container-fixtures.ts';
import { fixturePath, loadFixtures } from '../../fixture-files.ts';
import { chunksOf } from '../../io/sources.ts';
import { unwrap } from '../../oracle/containers.ts';

const { gzipSync } = zlib;

/** sha256 of each block's content, by idstr. */
async function hashRam(file: MigrationFile): Promise<Record<string, string>> {
  const store = new MappedRamStore(new MemoryFile(), file.pageSlots);
  const { inspection } = await inspect(file, { sink: store });
  expect(inspection.error).toBeUndefined();
  expect(inspection.findings.filter(({ severity }) => severity !== 'info')).toEqual([]);
  expect(inspection.complete).toBe(true);
  const hashes: Record<string, string> = {};
  for (const block of store.blocks) {
    const content = new Uint8Array(block.usedLength);
    await store.read(block, 0, content);
    hashes[block.idstr] = createHash('sha256').update(content).digest('hex');
  }
  await file.close();
  return hashes;
}

const truthOf = (truth: { idstr: string; sha256: string }[]) =>
  Object.fromEntries(truth.map(({ idstr, sha256 }) => [idstr, sha256]));
const piped = (bytes: Uint8Array) => new StreamSource(chunksOf(bytes, 999), 'memory');
const plain = loadFixtures().find(({ name }) => name === 'none-plain-10.0')!;
const withSnapshot = (snapshot: string | undefined) => (snapshot === undefined ? {} : { snapshot });

describe('a stream in', () => {
  const fixtures = loadContainerFixtures();

  it.each(fixtures)('$name has the RAM of its guest', async ({ bytes, streams }) => {
    for (const { snapshot, truth } of streams) {
      expect(await hashRam(await open(bytes, withSnapshot(snapshot)))).toEqual(truthOf(truth));
    }
  });

  it.each(fixtures.filter(({ name }) => name.startsWith('libvirt')))(
    '$name has the RAM of its guest even through a pipe',
    async ({ bytes, streams }) => {
      expect(await hashRam(await open(piped(bytes)))).toEqual(truthOf(streams[0]!.truth));
    },
  );

  it.each(fixtures.filter(({ name }) => /raw|gzip|xz|sparse|v2|v3|subclusters|deflate/.test(name)))(
    '$name is read without Node',
    async ({ bytes, streams }) => {
      for (const { snapshot, truth } of streams) {
        expect(await hashRam(await openPortable(bytes, withSnapshot(snapshot)))).toEqual(truthOf(truth));
      }
    },
  );

  it('opens a file compressed as a whole, and a compressed save image', async () => {
    for (const { name, truth } of loadFixtures().filter((each) => each.name.endsWith('mapped-ram-10.0'))) {
      expect(await hashRam(await open(fixturePath(`${name}.bin.gz`)))).toEqual(truthOf(truth));
    }
    const { bytes, streams } = loadContainerFixture('libvirt-gzip');
    const file = await open(gzipSync(bytes));
    expect(file.containers.map(({ kind }) => kind)).toEqual(['compressed', 'libvirt']);
    expect(file.input.name).toBe('memory');
    expect(await hashRam(file)).toEqual(truthOf(streams[0]!.truth));
  });

  it('treats several gzip members as one stream', async () => {
    const halves = [plain.bytes.subarray(0, 50_000), plain.bytes.subarray(50_000)].map((half) => gzipSync(half));
    expect(await hashRam(await open(new Uint8Array(Buffer.concat(halves))))).toEqual(truthOf(plain.truth));
  });

  it('finds an image at an offset', async () => {
    const { bytes, streams } = loadContainerFixture('libvirt-raw');
    const shifted = new Uint8Array(Buffer.concat([Buffer.alloc(777), bytes]));
    for (const input of [shifted, piped(shifted)]) {
      expect(await hashRam(await open(input, { offset: 777 }))).toEqual(truthOf(streams[0]!.truth));
    }
  });
});

describe('inspecting', () => {
  it('a libvirt save image shows its facts and its XML', async () => {
    const { bytes } = loadContainerFixture('libvirt-sparse');
    const file = await open(bytes);
    const { inspection } = await inspect(file);
    expect(inspection.format).toBe('mapped-ram');
    expect(inspection.containers).toEqual([
      {
        kind: 'libvirt',
        version: 2,
        isFinished: true,
        byteOrder: 'little',
        format: 'sparse',
        wasRunning: true,
        dataLength: file.offset - 92,
        cookieOffset: expect.any(Number),
        xmlLength: expect.any(Number),
        cookieLength: expect.any(Number),
        domain: {
          type: 'qemu',
          name: expect.stringMatching(/^ferry-/),
          uuid: '9f4e1c55-7d4f-4c57-9c7f-0d7a30fbb9a1',
        },
      },
    ]);
    const [container] = file.containers;
    if (container?.kind !== 'libvirt') throw new Error('not a libvirt image');
    expect(container.data.xml).toContain('<title>ferry &amp; quay</title>');
    expect(container.data.cookie).toMatch(/^<cookie>/);
  });

  it('a snapshot is shown by name or by id', async () => {
    const { bytes } = loadContainerFixture('qcow2-v3-10.0');
    for (const snapshot of ['second', '2']) {
      const file = await open(bytes, { snapshot });
      const { inspection } = await inspect(file);
      expect(file.source.name).toBe(`memory#${snapshot}`);
      expect(inspection.containers).toMatchObject([{ kind: 'qcow2', id: '2', name: 'second', diskSize: 2 ** 20 }]);
      expect(inspection.length).toBe(file.source.size);
    }
  });
});

describe('a qcow2 image', () => {
  const { bytes } = loadContainerFixture('qcow2-v3-10.0');
  const table = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(64));
  const patch = (at: number, ...values: number[]) => {
    const copy = bytes.slice();
    copy.set(values, at);
    return copy;
  };

  it('is refused if no snapshot is named, with a list of them', async () => {
    const opening = open(bytes);
    await expect(opening).rejects.toThrow(SnapshotError);
    await expect(opening).rejects.toThrow('as memory#NAME: it has "first", "second"');
    await expect(open(bytes, { snapshot: 'third' })).rejects.toThrow('got "third": it has "first", "second"');
    await expect(open(patch(63, 0))).rejects.toThrow(/no snapshot with a VM state/);
    for (const other of [plain.bytes, gzipSync(plain.bytes), loadContainerFixture('libvirt-raw').bytes]) {
      await expect(open(other, { snapshot: 'first' })).rejects.toMatchObject({ code: 'bad-disk-image' });
    }
  });

  it('cannot be read through a pipe, or at an offset', async () => {
    await expect(open(piped(bytes), { snapshot: 'first', spool: 'never' })).rejects.toThrow(/random access/);
    const shifted = new Uint8Array(Buffer.concat([Buffer.alloc(512), bytes]));
    await expect(open(shifted, { snapshot: 'first', offset: 512 })).rejects.toThrow(RangeError);
  });

  it.each<[string, FindingCode, RegExp, Uint8Array]>([
    ['is encrypted', 'unsupported', /encrypted \(LUKS\)/, patch(35, 2)],
    ['keeps its data elsewhere', 'unsupported', /in another file/, patch(79, 4)],
    ['has features of the future', 'unsupported', /features 0x100/, patch(78, 1)],
    [
      'has a snapshot of the disk alone',
      'no-vm-state',
      /"first" contains only the disk/,
      patch(table + 40, 0, 0, 0, 0, 0, 0, 0, 0),
    ],
    ['has too short an L1 table', 'bad-disk-image', /an L1 table for/, patch(table + 11, 0)],
    ['has its snapshot table beyond its end', 'truncated', /expected/, patch(69, 0xff)],
  ])('is refused if it %s', async (_, code, message, image) => {
    const opening = open(image, { snapshot: 'first' });
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toMatchObject({ code, place: { source: 'memory', coordinate: 'file' } });
  });

  it('gives a warning if it was not closed, or has ambiguous names', async () => {
    const codes = async (image: Uint8Array, snapshot: string) =>
      (await verify(await open(image, { snapshot }))).findings.map(({ code }) => code);
    expect(await codes(bytes, 'first')).toEqual([]);
    expect(await codes(patch(79, 1), 'first')).toEqual(['unclean-image']);
    expect(await codes(patch(79, 2), 'first')).toEqual(['unclean-image']);
    // The second snapshot's id becomes the first letter of the first snapshot's name, which becomes the whole name.
    const renamed = bytes.slice();
    const view = new DataView(renamed.buffer);
    const nameAt = table + 40 + view.getUint32(table + 36) + view.getUint16(table + 12);
    renamed[nameAt - 1] = 0x66; // id "f"
    view.setUint16(table + 14, 1); // name "f", and padding that is no longer right
    expect(unwrap(bytes, 'first').bytes.length).toBeGreaterThan(0);
    const length = Math.ceil((nameAt + 1 - table) / 8) * 8;
    const second = table + Math.ceil((nameAt + 5 - table) / 8) * 8;
    renamed.copyWithin(table + length, second, second + 200);
    const idAt = table + length + 40 + view.getUint32(table + length + 36);
    renamed[idAt] = 0x66;
    expect(await codes(renamed, 'f')).toEqual(['ambiguous-snapshot']);
  });

  it('has zeros for a hole in a VM state', async () => {
    const { source } = await open(bytes, { snapshot: 'first' });
    const whole = new Uint8Array(source.size as number);
    expect(await source.read(whole, 0)).toBe(whole.length);
    expect(Buffer.compare(whole, unwrap(bytes, 'first').bytes)).toBe(0);
    expect(await source.read(new Uint8Array(10), whole.length)).toBe(0);
    // Any range equals that part of the whole.
    for (const [from, length] of [
      [0, 1],
      [65_535, 2],
      [100_000, 131_072],
      [whole.length - 3, 50],
    ] as const) {
      const part = new Uint8Array(length);
      const count = await source.read(part, from);
      expect(Buffer.compare(part.subarray(0, count), whole.subarray(from, from + length))).toBe(0);
    }
  });
});

describe('a libvirt save image', () => {
  const head = (change: Partial<Parameters<typeof encodeLibvirtHead>[0]> = {}) =>
    encodeLibvirtHead({ xml: '<domain/>', cookie: undefined, format: 'raw', wasRunning: false, padding: 0, ...change });
  const image = (change: Parameters<typeof head>[0], body: Uint8Array = plain.bytes) =>
    new Uint8Array(Buffer.concat([head(change), body]));
  const codesOf = async (bytes: Uint8Array, options: OpenOptions = {}) =>
    (await verify(await open(bytes, options))).findings.map(({ code }) => code);

  it('is read from a big-endian host, and without cookie and padding', async () => {
    const file = await open(image({ byteOrder: 'big' }));
    expect(file.containers).toMatchObject([
      { kind: 'libvirt', header: { byteOrder: 'big' }, data: { cookie: undefined } },
    ]);
    expect(await hashRam(file)).toEqual(truthOf(plain.truth));
  });

  it('is bad if it was never finished, but its stream can be opened by itself', async () => {
    const bytes = image({ isFinished: false });
    expect(await codesOf(bytes)).toEqual(['incomplete-save']);
    expect(await codesOf(bytes, { offset: head().length })).toEqual([]);
  });

  it('is refused if it is truncated, or contains no stream', async () => {
    await expect(open(head().subarray(0, 60))).rejects.toMatchObject({ code: 'truncated' });
    await expect(open(head().subarray(0, 95))).rejects.toMatchObject({ code: 'truncated' });
    await expect(open(piped(head().subarray(0, 95)))).rejects.toMatchObject({ code: 'truncated' });
    expect(await codesOf(head())).toEqual(['truncated']);
    expect(await codesOf(image({}, new TextEncoder().encode('LibvirtQemudSave')))).toEqual(['not-a-migration-stream']);
  });

  it.each(['gzip', 'xz', 'bzip2', 'zstd'] as const)('names the place of damage in a %s body', async (format) => {
    const { bytes } = loadContainerFixture(`libvirt-${format}`);
    const cut = await verify(await open(bytes.subarray(0, bytes.length - 20_000)));
    expect(cut.ok).toBe(false);
    const bad = cut.findings.find(({ code }) => code === 'bad-compression');
    expect(bad?.message).toMatch(new RegExp(`^expected ${format} data: [^\\n]+$`));
    expect(bad?.place).toMatchObject({ source: 'memory', coordinate: 'decompressed' });
    // Output before the damage is detected may be nonsense.
    const damaged = await verify(await open(bytes.slice().fill(7, bytes.length - 9000, -8000)));
    expect(damaged.ok).toBe(false);
    expect(damaged.findings[0]?.place.coordinate).toBe('decompressed');
  });

  it('is bad if the last byte of its body, after the stream, is damaged', async () => {
    const body = gzipSync(plain.bytes);
    body[body.length - 6] = (body[body.length - 6] as number) ^ 1;
    expect(await codesOf(image({ format: 'gzip' }, body))).toEqual(['bad-compression']);
    const more = gzipSync(Buffer.concat([plain.bytes, Buffer.alloc(100, 7)]));
    expect(await codesOf(image({ format: 'gzip' }, more.subarray(0, -3)))).toEqual(['bad-compression']);
    expect(await codesOf(image({ format: 'gzip' }, more))).toEqual(['trailing-data']);
  });

  it('names the missing decompressor', async () => {
    const opening = openPortable(image({ format: 'lzop' })).then((file) => inspect(file));
    await expect(opening).rejects.toMatchObject({ code: 'ERR_MISSING_DECOMPRESSOR' });
    await expect(opening).rejects.toThrow(/^lzop data cannot be decompressed: this platform/);
    const path = process.env.PATH;
    process.env.PATH = '/nowhere';
    try {
      const file = await open(image({ format: 'lzop' }));
      await expect(inspect(file)).rejects.toThrow(/the program "lzop" is not installed/);
      await file.close();
    } finally {
      process.env.PATH = path;
    }
  });

  it('in zstd is read even without the program', async () => {
    const { bytes, streams } = loadContainerFixture('libvirt-zstd');
    const truth = truthOf(streams[0]!.truth);
    expect(await hashRam(await openPortable(bytes))).toEqual(truth);
    const path = process.env.PATH;
    process.env.PATH = '/nowhere';
    try {
      expect(await hashRam(await open(bytes))).toEqual(truth);
      const cut = await verify(await open(bytes.subarray(0, bytes.length - 3)));
      expect(cut.findings).toMatchObject([{ code: 'bad-compression', message: /unexpected end of data/ }]);
      const changed = bytes.slice();
      changed[bytes.length - 2] = (changed[bytes.length - 2] as number) ^ 1;
      expect((await verify(await open(changed))).findings).toMatchObject([{ code: 'bad-compression' }]);
    } finally {
      process.env.PATH = path;
    }
  });

  it('can be closed before its body is read to the end', async () => {
    for (const format of ['gzip', 'xz', 'bzip2', 'zstd'] as const) {
      const file = await open(loadContainerFixture(`libvirt-${format}`).bytes);
      for await (const { kind } of file.flow()) if (kind === 'configuration') break;
      await file.close();
    }
  });
});

describe('a compressed stream', () => {
  it('of endless zeros is refused at its start, and takes no memory', async () => {
    const bomb = gzipSync(new Uint8Array(64 << 20));
    const { findings } = await verify(await open(new Uint8Array(bomb)));
    expect(findings).toMatchObject([{ code: 'not-a-migration-stream', place: { coordinate: 'decompressed' } }]);
  });

  it('inside others is opened three levels deep', async () => {
    let bytes: Uint8Array = plain.bytes;
    for (let depth = 1; depth <= 4; depth++) {
      bytes = gzipSync(bytes);
      const { ok } = await verify(await open(bytes));
      expect(ok).toBe(depth <= 3);
    }
  });

  it('uses a decompressor that the caller supplies', async () => {
    const formats: string[] = [];
    const file = await open(gzipSync(plain.bytes), {
      decompress(format, chunks, signal) {
        formats.push(format);
        return nodeDecompress(format, chunks, signal);
      },
    });
    expect(await hashRam(file)).toEqual(truthOf(plain.truth));
    expect(formats).toEqual(['gzip']);
  });
});
