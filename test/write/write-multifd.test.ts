import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { open } from '../../src/index.ts';
import { appendTo, type ByteSink } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import type { PageCodecs } from '../../src/io/page-codec.ts';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { type ReleaseRules, releaseRulesOf } from '../../src/schema/release-rules.ts';
import { openSavedVm } from '../../src/store/ram-content.ts';
import { RawRam } from '../../src/store/raw-ram.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import type { WritableVm } from '../../src/vm/saved-vm.ts';
import { ByteWindow } from '../../src/wire/byte-window.ts';
import {
  helloLength,
  type MultifdHeader,
  maxPayload,
  multifdHeaderLength,
  multifdPacketPages,
  readPacketFlags,
  readPacketHeader,
} from '../../src/wire/multifd-packet.ts';
import { MultifdWriter } from '../../src/write/multifd-writer.ts';
import { StreamWriter, writerArenaBytes } from '../../src/write/stream-writer.ts';
import { type WriteMultifdOptions, writeMultifd } from '../../src/write/write-multifd.ts';
import {
  blockList,
  channelHello,
  configuration,
  EOF,
  EOS,
  end,
  FLUSH,
  filled,
  header,
  join,
  KIB4,
  normalPage,
  packet,
  part,
  start,
  zeroPage,
} from '../oracle/build.ts';
import { slowRead } from '../oracle/slow-reader.ts';

const none = { machine: 'none', capabilities: [] };
const zero = new Uint8Array(KIB4);
const ramOf = (...pages: Uint8Array[]) => new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', join(...pages)) }]);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

function contentOf(file: MemoryFile): Uint8Array {
  const bytes = new Uint8Array(file.size);
  file.read(bytes, 0);
  return bytes;
}

/** Writes a set to memory: the main stream and the channels. */
async function written(vm: WritableVm, count: number, options?: WriteMultifdOptions) {
  const files = Array.from({ length: count + 1 }, (_, i) => new MemoryFile(i === 0 ? 'main' : `channel ${i - 1}`));
  const [main, ...channels] = files as [MemoryFile, ...MemoryFile[]];
  const sinks = channels.map((file) => appendTo(file));
  const said = await writeMultifd(vm, appendTo(main), sinks, options);
  expect(said.length).toBe(main.size);
  expect(said.channels.map(({ length }) => length)).toEqual(channels.map(({ size }) => size));
  return { ...said, main: contentOf(main), set: channels.map(contentOf) };
}

interface ReadPacket extends MultifdHeader {
  pages: number[];
}

function packetsOf(channel: Uint8Array, pageSize: number): ReadPacket[] {
  const window = new ByteWindow(channel, 'channel');
  window.limit = channel.length;
  window.position = helloLength;
  const list: ReadPacket[] = [];
  const found = new Float64Array(512);
  while (window.position < channel.length) {
    const one = readPacketHeader(window, readPacketFlags(window), pageSize, found);
    list.push({ ...one, pages: [...found.subarray(0, one.normalPages + one.zeroPages)] });
    window.position += multifdHeaderLength(pageSize) + one.payloadLength;
  }
  expect(window.position).toBe(channel.length);
  return list;
}

describe('a multifd set written from a RAM image', () => {
  const ram = ramOf(zero, filled(1), zero, filled(2));

  it('has, byte for byte, the documented layout of 10.0', async () => {
    const { main, set } = await written({ configuration: none, ram }, 2);
    expect(hex(main)).toBe(
      hex(
        join(
          header,
          configuration('none'),
          start(1, 'ram', 4, blockList(['ram', 4 * KIB4]), FLUSH, EOS),
          part(1, FLUSH, EOS),
          end(1, EOS),
          EOF,
        ),
      ),
    );
    const sync = (number: number) => packet({ flags: 1, allocated: 0, block: '', number });
    const payload = join(filled(1), filled(2));
    const pages = packet({ normal: [KIB4, 3 * KIB4], zero: [0, 2 * KIB4], payload, number: 2 });
    expect(hex(set[0] as Uint8Array)).toBe(hex(join(channelHello(0), sync(0), pages, sync(3))));
    expect(hex(set[1] as Uint8Array)).toBe(hex(join(channelHello(1), sync(1), sync(4))));
  });

  it('has, byte for byte, the documented layout of 7.2', async () => {
    const { main, set } = await written({ configuration: none, ram }, 1, { rules: releaseRulesOf('none', '7.2') });
    expect(hex(main)).toBe(
      hex(
        join(
          header,
          configuration('none'),
          start(1, 'ram', 4, blockList(['ram', 4 * KIB4]), EOS),
          part(1, zeroPage(0, 'ram'), zeroPage(2 * KIB4), EOS),
          end(1, EOS),
          EOF,
        ),
      ),
    );
    const sync = (number: number) => packet({ flags: 1, block: '', number });
    const pages = packet({ normal: [KIB4, 3 * KIB4], payload: join(filled(1), filled(2)), number: 1 });
    expect(hex(set[0] as Uint8Array)).toBe(hex(join(channelHello(0), sync(0), pages, sync(2), sync(3))));
  });

  it('has the given UUID, or that of the configuration, in every channel', async () => {
    const uuid = '0123456789abcdef0011223344556677';
    const ofGuest = await written({ configuration: { ...none, uuid }, ram }, 2);
    const told = await written({ configuration: none, ram }, 2, { uuid });
    for (const { set } of [ofGuest, told]) {
      expect(set.map((bytes) => hex(bytes.subarray(0, 64)))).toEqual([0, 1].map((id) => hex(channelHello(id, uuid))));
    }
  });

  it('has neither pages that were never sent nor pages of ignored blocks', async () => {
    const stream = join(
      header,
      configuration('none'),
      start(7, 'ram', 4, blockList(['ram', 4 * KIB4], ['shared', KIB4]), EOS),
      part(7, normalPage(3 * KIB4, filled(1), 'ram'), EOS),
      end(7, EOS),
      EOF,
    );
    const vm = await openSavedVm(await open(stream), { makeScratch: () => new MemoryFile() });
    const pagesOf = async (of: WritableVm, options?: WriteMultifdOptions) => {
      const { main, set } = await written(of, 2, options);
      expect((await verify(await open(main, { channels: set }))).ok).toBe(true);
      return slowRead(main, 0, set).blocks.map(({ last }) => [...last]);
    };
    expect(await pagesOf(vm)).toEqual([[0, 0, 0, 2], [0]]);
    for (const version of ['7.2', '10.0'] as const) {
      const options = { rules: releaseRulesOf('none', version) };
      expect(await pagesOf({ ...vm, ignored: vm.ram.blocks }, options)).toEqual([[0, 0, 0, 0], [0]]);
    }
  });

  it('of a VM without RAM has channels with only their first bytes', async () => {
    const vm = await openSavedVm(await open(join(header, configuration('none'), EOF)), {
      makeScratch: () => new MemoryFile(),
    });
    const { main, set } = await written(vm, 2);
    expect(set.map(hex)).toEqual([0, 1].map((id) => hex(channelHello(id))));
    expect((await verify(await open(main, { channels: set }))).ok).toBe(true);
  });

  it('refuses no channels, too many, an unknown level, or an invalid UUID', async () => {
    const write = (count: number, options: WriteMultifdOptions) =>
      written({ configuration: none, ram }, count, options);
    await expect(write(0, {})).rejects.toThrow(/1 to 255 multifd channels, got 0/);
    await expect(write(256, {})).rejects.toThrow(RangeError);
    await expect(write(1, { compression: 'zlib', level: 10 })).rejects.toThrow(/from 0 to 9, got 10/);
    await expect(write(1, { compression: 'zstd', level: 1.5 })).rejects.toThrow(RangeError);
    await expect(write(1, { compression: 'lz4' as 'zlib' })).rejects.toThrow(/none, zlib or zstd, got lz4/);
    const writer = new StreamWriter(await loadKernel({ arenaBytes: writerArenaBytes + 65536 }), { write() {} });
    const options = { rules: releaseRulesOf('none'), codecs: new NodeCodecs(), pageSize: 5000 };
    await expect(MultifdWriter.open(writer, [{ write() {} }], options)).rejects.toThrow(
      /a power of two from 1024 to 65536, got 5000/,
    );
    await expect(write(1, { uuid: '01234567-89ab' })).rejects.toThrow(/32 hex digits/);
  });
});

describe('any VM as a multifd set', () => {
  const versions = fc.constantFrom('7.2', '9.0', '10.0').map((version) => releaseRulesOf('none', version as '7.2'));
  const shapes = fc.constantFrom(1024, 4096, 8192, 65536).chain((pageSize) => {
    const most = pageSize > 8192 ? 20 : 300;
    const runs = fc.array(fc.record({ pages: fc.integer({ min: 1, max: most }), value: fc.nat(3) }), { maxLength: 4 });
    const idstr = fc.oneof(
      fc.constantFrom('pc.ram', '/rom@etc/acpi/tables'),
      fc.string({ minLength: 1, maxLength: 255, unit: fc.constantFrom(...'abcz019./@-:') }),
      fc.constant('n'.repeat(255)),
    );
    return fc.record({
      pageSize: fc.constant(pageSize),
      blocks: fc
        .uniqueArray(fc.record({ idstr, runs }), { minLength: 1, maxLength: 4, selector: (block) => block.idstr })
        .filter((blocks) => (blocks.at(-1)?.runs.length ?? 0) > 0),
      channels: fc.integer({ min: 1, max: 6 }),
      compression: fc.constantFrom('none' as const, 'zlib' as const, 'zstd' as const),
      rules: versions,
    });
  });

  it("reads back the same with both readers, in packets like QEMU's", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ pageSize, blocks, channels, compression, rules }) => {
        const contents = blocks.map(({ runs }) =>
          join(...runs.map(({ pages, value }) => new Uint8Array(pages * pageSize).fill(value))),
        );
        const images = blocks.map(({ idstr }, i) => ({ idstr, source: new MemoryFile(idstr, contents[i]) }));
        const vm = {
          configuration: { ...none, targetPageBits: Math.log2(pageSize) },
          ram: new RawRam(images, pageSize),
        };
        const { main, set } = await written(vm, channels, { compression, rules, codecs: new NodeCodecs() });
        const slow = slowRead(main, 0, set);
        expect(slow).toMatchObject({ machine: 'none', complete: true, end: main.length });
        slow.blocks.forEach(({ content }, i) => {
          expect(Buffer.compare(content, contents[i] as Uint8Array)).toBe(0);
        });
        const { ok, findings } = await verify(await open(main, { channels: set }));
        expect([ok, findings.map(({ code }) => code)]).toEqual([true, ['description-missing']]);
        expectPackets(set, pageSize, rules);
      }),
      { numRuns: 25 },
    );
  });

  function expectPackets(set: readonly Uint8Array[], pageSize: number, rules: ReleaseRules): void {
    const lists = set.map((channel) => packetsOf(channel, pageSize));
    const most = multifdPacketPages(pageSize);
    const numbers = lists.flat().map(({ packetNumber }) => Number(packetNumber));
    expect(numbers.sort((a, b) => a - b)).toEqual(numbers.map((_, i) => i));
    for (const packets of lists) {
      const rising = packets.map(({ packetNumber }) => packetNumber);
      expect(rising.every((number, i) => i === 0 || number > (rising[i - 1] as bigint))).toBe(true);
      expect(packets.filter(({ sync }) => sync)).toHaveLength(rules.multifdMarks === 'round' ? 2 : 3);
      for (const { sync, normalPages, zeroPages, payloadLength, pagesAllocated } of packets) {
        expect(payloadLength).toBeLessThanOrEqual(maxPayload);
        if (rules.zeroPages === 'records') expect(zeroPages).toBe(0);
        if (sync)
          expect([normalPages, zeroPages, pagesAllocated]).toEqual([0, 0, rules.pagesAllocatedInSync ? most : 0]);
        else expect(normalPages + zeroPages).toBeGreaterThan(0);
      }
    }
    // Only the last packet of a block is not full.
    const pages = lists.flat().filter(({ sync }) => !sync);
    const partial = pages.filter(({ normalPages, zeroPages }) => normalPages + zeroPages < most);
    expect(new Set(partial.map(({ block }) => block)).size).toBe(partial.length);
  }
});

describe('slow channels', () => {
  const pages = Array.from({ length: 2000 }, (_, i) => (i % 5 === 0 ? zero : filled(1 + (i % 250))));
  const vm = { configuration: none, ram: ramOf(...pages) };

  /** Writes as late as possible. */
  function late(turns: number) {
    const pieces: Uint8Array[] = [];
    const sink: ByteSink = {
      async write(bytes) {
        for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
        pieces.push(bytes.slice());
      },
    };
    return { sink, bytes: () => join(...pieces) };
  }

  it.each(['none', 'zlib', 'zstd'] as const)('get the same (%s)', async (compression) => {
    const sinks = [0, 7, 1, 3, 0, 2].map(late);
    const main = new MemoryFile();
    const options = { compression, codecs: new NodeCodecs() };
    await writeMultifd(
      vm,
      appendTo(main),
      sinks.map(({ sink }) => sink),
      options,
    );
    const { set } = await written(vm, 6, options);
    expect(sinks.map(({ bytes }) => hex(bytes()))).toEqual(set.map(hex));
  });

  it('do not wait for an unsent mark: a receiver that stops at each SYNC gets everything', async () => {
    for (const version of ['7.2', '10.0'] as const) {
      const rules = releaseRulesOf('none', version);
      // What the receiver has of the main stream, and the channels that wait for more.
      let marks = 0;
      let waiting: (() => void)[] = [];
      const mark = hex(Uint8Array.from(rules.multifdMarks === 'round' ? FLUSH : EOS));
      const main: ByteSink = {
        write(bytes) {
          marks += hex(bytes).split(mark).length - 1;
          for (const go of waiting.splice(0)) go();
        },
      };
      const channel = (): ByteSink => {
        let syncs = 0;
        return {
          async write(bytes) {
            while (marks < syncs) await new Promise<void>((resolve) => waiting.push(resolve));
            if (bytes.length === multifdHeaderLength(KIB4) && bytes[11] === 1) syncs++;
          },
        };
      };
      const { channels } = await writeMultifd(vm, main, [channel(), channel(), channel()], { rules });
      expect(channels.every(({ packets }) => packets > 3)).toBe(true);
      waiting = [];
    }
  });

  it('end the writing with their error if they fail', async () => {
    const failing = (after: number): ByteSink => {
      let count = 0;
      return {
        async write() {
          if (count++ === after) throw new Error(`no room after ${after}`);
        },
      };
    };
    for (const after of [0, 1, 2, 5]) {
      const sinks = [late(1).sink, failing(after), late(3).sink];
      await expect(writeMultifd(vm, { write() {} }, sinks)).rejects.toThrow(`no room after ${after}`);
    }
    const main = { write: () => Promise.reject(new Error('no main')) };
    await expect(writeMultifd(vm, main, [late(2).sink])).rejects.toThrow('no main');
  });

  it.each(['none', 'zlib', 'zstd'] as const)(
    'end the writing if they fail, even if others never complete (%s)',
    async (compression) => {
      const stuck: ByteSink = { write: () => new Promise(() => {}) };
      const failing = (after: number): ByteSink => {
        let count = 0;
        return { write: () => (count++ < after ? Promise.resolve() : Promise.reject(new Error('no room'))) };
      };
      const fine: ByteSink = { write() {} };
      let openEncoders = 0;
      const node = new NodeCodecs();
      const codecs: PageCodecs = Object.assign(Object.create(node), {
        async openEncoder(...args: Parameters<PageCodecs['openEncoder']>) {
          const encoder = await node.openEncoder(...args);
          openEncoders++;
          const close = () => {
            openEncoders--;
            encoder.close();
          };
          return { encode: encoder.encode.bind(encoder), close };
        },
      });
      /** Takes its first bytes, and then no more. */
      const late = (): ByteSink => {
        let count = 0;
        return { write: () => (count++ === 0 ? undefined : stuck.write(new Uint8Array())) };
      };
      const cases: [ByteSink, ByteSink[]][] = [
        [fine, [failing(0), stuck]],
        [fine, [failing(1), late()]],
        [fine, [late(), failing(1)]],
        [failing(0), [late(), fine]],
        [stuck, [failing(1), fine]],
      ];
      for (const [main, channels] of cases) {
        await expect(writeMultifd(vm, main, channels, { compression, codecs })).rejects.toThrow('no room');
      }
      await new Promise(setImmediate);
      expect(openEncoders).toBe(0);
    },
  );
});
