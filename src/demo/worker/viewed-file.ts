/** A file that was opened to be looked into: what was found out, and what is kept for it until it is closed. */

import { bodyOffsetOf, type DeviceState } from '../../devices/device-state.ts';
import type { ScratchPlace } from '../../io/scratch.ts';
import type { MigrationFile } from '../../read/open.ts';
import { readDevices } from '../../store/devices.ts';
import { openSavedVm } from '../../store/ram-content.ts';
import { inspect } from '../../tasks/inspect/inspect.ts';
import { PagePasses } from '../../tasks/inspect/page-passes.ts';
import { pageCount } from '../../vm/ram-block.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';
import type { BlockView, FileInput, OpenedFile } from '../protocol.ts';
import { BlockLayers } from './block-layers.ts';
import { type CallContext, Meter, SharedWork } from './calls.ts';
import { DeviceTree } from './device-nodes.ts';
import { Origin } from './origin.ts';

type Told = Pick<CallContext, 'signal' | 'progress'>;

export class ViewedFile {
  readonly id: number;
  readonly origin: Origin;
  readonly #inspection: OpenedFile['inspection'];
  readonly #blocks: readonly BlockLayers[];
  readonly #content: SharedWork<{ vm: SavedVm; file: MigrationFile }>;
  readonly #devices: SharedWork<DeviceTree>;
  #known: SavedVm | undefined;
  /** Ends what is kept open. */
  readonly #closing = new AbortController();

  private constructor(
    id: number,
    origin: Origin,
    inspection: OpenedFile['inspection'],
    blocks: readonly BlockLayers[],
    scratch: ScratchPlace,
  ) {
    this.id = id;
    this.origin = origin;
    this.#inspection = inspection;
    this.#blocks = blocks;
    this.#content = new SharedWork((told) => this.#openContent(told, scratch));
    this.#devices = new SharedWork((told) => this.#readDevices(told));
  }

  /** Reads the file through; of a mapped-ram file all but the pages. */
  static async open(id: number, input: FileInput, scratch: ScratchPlace, told: Told): Promise<ViewedFile> {
    const origin = await Origin.find(input, told.signal);
    const { inspection, blocks } = await reading(origin, told, 'reading', async (file) => {
      const passes = new PagePasses();
      const { inspection, states } = await inspect(file, { pages: true, watch: (item) => passes.take(item) });
      const hasPasses = (inspection.ram.passes ?? 0) > 0;
      const blocks = states.map(({ block, states }) => {
        return new BlockLayers(block, states, hasPasses ? passes.blocks[block.index] : undefined);
      });
      return { inspection, blocks };
    });
    return new ViewedFile(id, origin, inspection, blocks, scratch);
  }

  get opened(): OpenedFile {
    const { name, size, partNames } = this.origin;
    const blocks: BlockView[] = this.#blocks.map(({ block, layers }) => {
      const { index, idstr, usedLength, pageSize } = block;
      return { index, idstr, usedLength, pageSize, pages: pageCount(block), layers };
    });
    return { id: this.id, name, size, inspection: this.#inspection, blocks, parts: partNames };
  }

  get blocks(): readonly BlockLayers[] {
    return this.#blocks;
  }

  /** @throws RangeError for a block that there is not */
  block(index: number): BlockLayers {
    const block = this.#blocks[index];
    if (block !== undefined) return block;
    throw new RangeError(`expected one of ${this.#blocks.length} RAM blocks, got number ${index}`);
  }

  /** The final content of RAM. Of a stream it is found out by reading all of it, once. @throws MigrationError */
  async content(context: CallContext): Promise<SavedVm> {
    const { vm } = await this.#content.get(context);
    this.#known = vm;
    return vm;
  }

  /** The content, if it was found out already. */
  get knownContent(): SavedVm | undefined {
    return this.#known;
  }

  /** The devices as far as they can be read. */
  devices(context: CallContext): Promise<DeviceTree> {
    return this.#devices.get(context);
  }

  /** Opens the file for one piece of work. */
  read<Result>(told: Told, doing: string, work: (file: MigrationFile) => Promise<Result>): Promise<Result> {
    return reading(this.origin, told, doing, work);
  }

  async close(): Promise<void> {
    const content = this.#content.finished();
    this.#closing.abort(new DOMException('the file was closed', 'AbortError'));
    const opened = await content;
    await opened?.vm.ram.close();
    await opened?.file.close();
  }

  async #openContent({ signal, progress }: Told, scratch: ScratchPlace) {
    const told = { signal: AbortSignal.any([signal, this.#closing.signal]), progress };
    let meter: Meter | undefined;
    const file = await this.origin.open({ signal: told.signal, onRead: () => meter?.reach(file.reached) });
    meter = new Meter(told, 'reading', file.size);
    try {
      const vm = await openSavedVm(file, { makeScratch: () => scratch.makeFile(), devices: true });
      return { vm, file };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  #readDevices(told: Told): Promise<DeviceTree> {
    const keyOf = (name: string, instanceId: number, bodyOffset: number) => `${name} ${instanceId} ${bodyOffset}`;
    // Of several streams only one is the file itself.
    const elsewhere = new Map(
      this.#inspection.sections
        .filter(({ source }) => source !== undefined)
        .map((section) => [keyOf(section.name, section.instanceId, bodyOffsetOf(section)), section.source]),
    );
    const sourceOf = ({ name, instanceId, offset }: DeviceState) => elsewhere.get(keyOf(name, instanceId, offset));
    return this.read(told, 'reading', async (file) => new DeviceTree((await readDevices(file)).devices, sourceOf));
  }
}

async function reading<Result>(
  origin: Origin,
  { signal, progress }: Told,
  doing: string,
  work: (file: MigrationFile) => Promise<Result>,
): Promise<Result> {
  let meter: Meter | undefined;
  const file = await origin.open({ signal, onRead: () => meter?.reach(file.reached) });
  meter = new Meter({ progress }, doing, file.size);
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}
