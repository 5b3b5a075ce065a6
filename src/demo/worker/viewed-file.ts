/** An open file: the results of reading it, and the resources that it keeps until it is closed. */

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
import { type CallContext, Meter, SharedWork, type WorkContext } from './calls.ts';
import { DeviceTree } from './device-nodes.ts';
import { Origin } from './origin.ts';

export class ViewedFile {
  readonly id: number;
  readonly origin: Origin;
  readonly #inspection: OpenedFile['inspection'];
  readonly #blocks: readonly BlockLayers[];
  readonly #content: SharedWork<{ vm: SavedVm; file: MigrationFile }>;
  readonly #devices: SharedWork<DeviceTree>;
  #known: SavedVm | undefined;
  /** Aborts the use of resources that are kept open. */
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
    this.#content = new SharedWork((context) => this.#openContent(context, scratch));
    this.#devices = new SharedWork((context) => this.#readDevices(context));
  }

  /** Reads the whole file. Of a mapped-ram file, it skips the pages. */
  static async open(id: number, input: FileInput, scratch: ScratchPlace, context: WorkContext): Promise<ViewedFile> {
    const origin = await Origin.find(input, context.signal);
    const { inspection, blocks } = await reading(origin, context, 'reading', async (file) => {
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

  /** @throws RangeError if there is no such block */
  block(index: number): BlockLayers {
    const block = this.#blocks[index];
    if (block !== undefined) return block;
    throw new RangeError(`expected one of ${this.#blocks.length} RAM blocks, got number ${index}`);
  }

  /** The final content of RAM. The first call on a stream reads the whole stream. @throws MigrationError */
  async content(context: CallContext): Promise<SavedVm> {
    const { vm } = await this.#content.get(context);
    this.#known = vm;
    return vm;
  }

  /** The content, if it is known already. */
  get knownContent(): SavedVm | undefined {
    return this.#known;
  }

  /** The devices that can be read. */
  devices(context: CallContext): Promise<DeviceTree> {
    return this.#devices.get(context);
  }

  /** Opens the file, does some work with it, and closes it. */
  read<Result>(context: WorkContext, doing: string, work: (file: MigrationFile) => Promise<Result>): Promise<Result> {
    return reading(this.origin, context, doing, work);
  }

  async close(): Promise<void> {
    const content = this.#content.finished();
    this.#closing.abort(new DOMException('the file was closed', 'AbortError'));
    const opened = await content;
    await opened?.vm.ram.close();
    await opened?.file.close();
  }

  async #openContent({ signal, progress }: WorkContext, scratch: ScratchPlace) {
    const context = { signal: AbortSignal.any([signal, this.#closing.signal]), progress };
    let meter: Meter | undefined;
    const file = await this.origin.open({ signal: context.signal, onRead: () => meter?.reach(file.reached) });
    meter = new Meter(context, 'reading', file.size);
    try {
      const vm = await openSavedVm(file, { makeScratch: () => scratch.makeFile(), devices: true });
      return { vm, file };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  #readDevices(context: WorkContext): Promise<DeviceTree> {
    const keyOf = (name: string, instanceId: number, bodyOffset: number) => `${name} ${instanceId} ${bodyOffset}`;
    // If a migration has several streams, only one of them is the main file.
    const elsewhere = new Map(
      this.#inspection.sections
        .filter(({ source }) => source !== undefined)
        .map((section) => [keyOf(section.name, section.instanceId, bodyOffsetOf(section)), section.source]),
    );
    const sourceOf = ({ name, instanceId, offset }: DeviceState) => elsewhere.get(keyOf(name, instanceId, offset));
    return this.read(context, 'reading', async (file) => new DeviceTree((await readDevices(file)).devices, sourceOf));
  }
}

async function reading<Result>(
  origin: Origin,
  { signal, progress }: WorkContext,
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
