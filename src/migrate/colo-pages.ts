/**
 * The pages of a checkpoint, on their way to the cache of the secondary side (COLO).
 *
 *     main line, multifd channels ──LiveFlow──→ batches in the arena ──→ CheckpointCache, run by run
 *                                               a delta: ──← the page before, from the cache
 */
import { PeerError } from '../io/connection.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import { DeltaDecoder } from '../store/delta-decoder.ts';
import type { FlowItem } from '../vm/flow.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { SavedDevices } from '../vm/saved-vm.ts';

/** RAM and devices that become the guest's at once. */
export interface CheckpointCache {
  readonly blocks: readonly RamBlock[];
  readonly devices: SavedDevices;
  /** Takes whole pages of the next checkpoint. */
  write(block: RamBlock, page: number, bytes: Uint8Array): Promise<void> | void;
  /** Reads whole pages of the next checkpoint, as far as it has come. */
  read(block: RamBlock, page: number, target: Uint8Array): Promise<void> | void;
  /** Makes the guest what was taken, whatever it has written itself. It is stopped. */
  apply(devices: SavedDevices): Promise<void>;
}

export class CheckpointPages {
  readonly #kernel: Kernel;
  readonly #cache: CheckpointCache;
  #deltas: DeltaDecoder | undefined;

  constructor(kernel: Kernel, cache: CheckpointCache) {
    this.#kernel = kernel;
    this.#cache = cache;
  }

  /** Takes the pages of one checkpoint. @throws PeerError for anything else */
  async take(items: AsyncIterable<FlowItem>): Promise<void> {
    for await (const item of items) {
      if (item.kind === 'pages') await this.#apply(this.#cache.blocks[item.block.index] as RamBlock, item.batch);
      if (item.kind === 'device' || item.kind === 'command')
        throw new PeerError(`expected the pages of a checkpoint, got a ${item.kind}`);
    }
  }

  async #apply(block: RamBlock, batch: PageBatch): Promise<void> {
    for (let i = 0; i < batch.count; ) {
      const run = runOf(batch, i, block.pageSize);
      const page = batch.page[i] as number;
      await this.#cache.write(block, page, await this.#bytes(block, batch, i, run));
      i += run;
    }
  }

  async #bytes(block: RamBlock, batch: PageBatch, record: number, run: number): Promise<Uint8Array> {
    const { pageSize } = block;
    const kind = batch.kind[record];
    if (kind === PageKind.zero) return new Uint8Array(pageSize);
    const address = batch.data[record] as number;
    if (kind !== PageKind.delta) return this.#kernel.bytes.subarray(address, address + run * pageSize);
    const bytes = new Uint8Array(pageSize);
    await this.#cache.read(block, batch.page[record] as number, bytes);
    this.#deltas ??= await DeltaDecoder.make();
    const fault = this.#deltas.decode(
      this.#kernel.bytes.subarray(address, address + (batch.length[record] as number)),
      bytes,
    );
    if (fault !== undefined) throw new PeerError(`a delta of a checkpoint does not decode: ${fault}`);
    return bytes;
  }
}

/** How many records from `first` on are whole pages that follow each other in RAM and in the arena. */
function runOf(batch: PageBatch, first: number, pageSize: number): number {
  if (batch.kind[first] !== PageKind.data) return 1;
  let run = 1;
  while (
    first + run < batch.count &&
    batch.kind[first + run] === PageKind.data &&
    batch.page[first + run] === (batch.page[first] as number) + run &&
    batch.data[first + run] === (batch.data[first] as number) + run * pageSize
  )
    run++;
  return run;
}
