/**
 * Pages that are compressed one by one in the main stream (capability `compress`, QEMU 7.2 to 9.0). They are decompressed
 * before they reach a sink. A page that does not decompress becomes a finding.
 */

import { CodecError, type PageCodecs } from '../io/page-codec.ts';
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { makeFinding } from '../vm/migration-error.ts';
import { pagePlace } from '../vm/page-place.ts';
import { packetRamBytes } from '../wire/multifd-packet.ts';

/** Records passed on at a time. The page slots limit how many of them can be compressed. */
const capacity = 1024;

/** Bytes of arena that an unpacker takes. */
export const unpackArenaBytes = arenaBytes(packetRamBytes) + pageBatchArenaBytes(capacity);

/** Decompresses the pages of a Flow. */
export class PageUnpacker {
  /** Arena address of {@link packetRamBytes} bytes for decompressed pages; multifd channels use it too. */
  readonly slots: number;
  readonly #kernel: Kernel;
  readonly #batch: PageBatch;
  readonly #codecs: PageCodecs;

  constructor(kernel: Kernel, codecs: PageCodecs) {
    this.slots = kernel.allocate(packetRamBytes);
    this.#kernel = kernel;
    this.#batch = new PageBatch(kernel, capacity);
    this.#codecs = codecs;
  }

  /**
   * Yields the pages of an item, decompressed. Kinds and sizes stay those of the records. A page that does not
   * decompress is left out and reported; with `partial` it is also discarded.
   */
  async *unpack(item: FlowItem & { kind: 'pages' }, partial = false): AsyncGenerator<FlowItem, void> {
    const { block, batch } = item;
    if (!batch.kind.subarray(0, batch.count).includes(PageKind.compressed)) {
      yield item;
      return;
    }
    const { pageSize } = block;
    const out = this.#batch;
    const slotCount = packetRamBytes / pageSize;
    let slot = 0;
    out.begin(batch.origin);
    for (let i = 0; i < batch.count; i++) {
      if (out.count === capacity || slot === slotCount) {
        yield { kind: 'pages', block, batch: out };
        out.clear();
        slot = 0;
      }
      let data = batch.data[i] as number;
      let length = batch.length[i] as number;
      if (batch.kind[i] === PageKind.compressed) {
        const address = this.slots + slot * pageSize;
        try {
          const target = this.#kernel.bytes.subarray(address, address + pageSize);
          await this.#codecs.decodePage('zlib', this.#kernel.bytes.subarray(data, data + length), target);
        } catch (error) {
          if (!(error instanceof CodecError)) throw error;
          const place = pagePlace(block, batch, i);
          yield { kind: 'finding', finding: makeFinding('bad-compressed-data', error.message, place) };
          // An earlier copy of the page is stale.
          if (partial) yield { kind: 'discard', block, firstPage: batch.page[i] as number, pages: 1 };
          continue;
        }
        data = address;
        length = pageSize;
        slot++;
      }
      const { kind, page, offset, size } = batch;
      out.push(kind[i] as PageKind, page[i] as number, offset[i] as number, size[i] as number, data, length);
    }
    if (out.count > 0) yield { kind: 'pages', block, batch: out };
  }
}
