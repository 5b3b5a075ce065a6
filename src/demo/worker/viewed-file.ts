/** An open file: the results of reading it, and the resources that it keeps until it is closed. */

import { bodyOffsetOf, type DeviceState } from '../../devices/device-state.ts';
import type { ScratchPlace } from '../../io/scratch.ts';
import type { MigrationFile } from '../../read/open.ts';
import { DeviceCollector } from '../../store/devices.ts';
import { SeparateSink } from '../../store/flow-sink.ts';
import { openSavedVm } from '../../store/ram-content.ts';
import { VmReading } from '../../store/vm-reading.ts';
import { type Examination, examine } from '../../tasks/inspect/examine.ts';
import type { InspectResult } from '../../tasks/inspect/inspect.ts';
import { PagePasses } from '../../tasks/inspect/page-passes.ts';
import { type Verification, verify } from '../../tasks/inspect/verify.ts';
import { type Finding, MigrationError } from '../../vm/migration-error.ts';
import { pageCount } from '../../vm/ram-block.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';
import type { BlockView, FileInput, OpenedFile, OpeningFile } from '../protocol.ts';
import { BlockLayers } from './block-layers.ts';
import { type CallContext, Meter, SharedWork, type WorkContext } from './calls.ts';
import { DeviceTree } from './device-nodes.ts';
import { Origin } from './origin.ts';

/** Larger mapped-ram files are opened without their pages, which takes only a moment. They are verified on request. */
const maxVerified = 256 << 20;

/** The VM in a file, and the open file that its RAM is read from. */
interface Content {
  vm: SavedVm;
  file: MigrationFile;
}

export class ViewedFile {
  readonly id: number;
  readonly origin: Origin;
  readonly #scratch: ScratchPlace;
  readonly #content: SharedWork<Content>;
  readonly #verifying: SharedWork<Verification>;
  #inspection: OpenedFile['inspection'] | undefined;
  #blocks: readonly BlockLayers[] = [];
  /** What the first reading found: the content, or why there is none. */
  #first: Content | { error: unknown } | undefined;
  #verification: Verification | undefined;
  #collected: { devices: DeviceCollector; error: Finding | undefined } | undefined;
  #tree: DeviceTree | undefined;
  #known: SavedVm | undefined;
  /** Aborts the use of resources that are kept open. */
  readonly #closing = new AbortController();

  private constructor(id: number, origin: Origin, scratch: ScratchPlace) {
    this.id = id;
    this.origin = origin;
    this.#scratch = scratch;
    this.#content = new SharedWork((context) => this.#openContent(context));
    this.#verifying = new SharedWork((context) => this.read(context, 'verifying', verify));
  }

  /**
   * Reads the whole file, once. It skips the pages of a large mapped-ram file, and of one on a server. `onBlocks` is called when
   * the RAM blocks are known. Their layers fill from then on.
   */
  static async open(
    id: number,
    input: FileInput,
    scratch: ScratchPlace,
    context: WorkContext,
    onBlocks: (file: ViewedFile) => void,
  ): Promise<ViewedFile> {
    const file = new ViewedFile(id, await Origin.find(input, context.signal, scratch), scratch);
    try {
      await file.#readOnce(context, () => onBlocks(file));
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** What is known while the file is being opened. */
  get opening(): OpeningFile {
    return { id: this.id, name: this.origin.name, blocks: this.#blockViews };
  }

  get opened(): OpenedFile {
    const { name, size, partNames } = this.origin;
    const isVerified = this.#verification !== undefined;
    const inspection = this.#inspection as OpenedFile['inspection'];
    return { id: this.id, name, size, inspection, blocks: this.#blockViews, parts: partNames, isVerified };
  }

  get #blockViews(): BlockView[] {
    return this.#blocks.map(({ block, layers }) => {
      const { index, idstr, usedLength, pageSize } = block;
      return { index, idstr, usedLength, pageSize, pages: pageCount(block), layers };
    });
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

  /** The final content of RAM. @throws MigrationError */
  async content(context: CallContext): Promise<SavedVm> {
    const { vm } = await this.#content.get(context);
    this.#known = vm;
    return vm;
  }

  /** The content, if it is known already. */
  get knownContent(): SavedVm | undefined {
    return this.#known;
  }

  /** Verifies the file, unless it was read as a whole when it was opened. */
  async verify(context: CallContext): Promise<Verification> {
    return this.#verification ?? this.#verifying.get(context);
  }

  /** The devices that can be read. They are decoded by the first call. */
  devices(): DeviceTree {
    this.#tree ??= this.#decodeDevices();
    return this.#tree;
  }

  /** Opens the file, does some work with it, and closes it. */
  read<Result>(context: WorkContext, doing: string, work: (file: MigrationFile) => Promise<Result>): Promise<Result> {
    return reading(this.origin, context, doing, work);
  }

  async close(): Promise<void> {
    const content = this.#content.finished();
    this.#closing.abort(new DOMException('the file was closed', 'AbortError'));
    const first = this.#first;
    const opened = new Set([await content, first !== undefined && 'vm' in first ? first : undefined]);
    for (const each of opened) {
      await each?.vm.ram.close();
      await each?.file.close();
    }
    await this.origin.close();
  }

  async #readOnce(context: WorkContext, onBlocks: () => void): Promise<void> {
    const { file, end } = await this.#openKept(context);
    try {
      const isInPlace = file.format === 'mapped-ram' && file.isSeekable;
      const isLarge = this.origin.isRemote || (file.size ?? 0) > maxVerified;
      const { verification, error } = await this.#readAs(file, isInPlace && isLarge ? 'bitmaps' : 'pages', onBlocks);
      // The bitmaps of a mapped-ram file show its pages, even if these are damaged.
      if (isInPlace && !isLarge && error !== undefined) await this.#readAs(file, 'bitmaps', onBlocks);
      this.#verification = verification;
    } finally {
      end();
      if (this.#known === undefined) await file.close();
    }
  }

  /** Reads the file, and keeps what it finds. */
  async #readAs(file: MigrationFile, read: 'pages' | 'bitmaps', onBlocks: () => void): Promise<Examination> {
    const content = new VmReading(file, { makeScratch: () => this.#scratch.makeFile(), devices: true });
    const separate = new SeparateSink(content);
    const devices = new DeviceCollector(file);
    const passes = new PagePasses();
    this.#known = undefined;
    try {
      const found = await examine(file, {
        read,
        sinks: [passes, new SeparateSink(devices), separate],
        onBlocks: (states) => {
          this.#blocks = layersOf(states, passes);
          onBlocks();
        },
      });
      const { inspection, states, error } = found;
      if (this.#blocks.length !== states.length) this.#blocks = layersOf(states, passes);
      if ((inspection.ram.passes ?? 0) === 0) for (const layers of this.#blocks) layers.passes = undefined;
      this.#inspection = inspection;
      this.#collected = { devices, error };
      const broken = error === undefined ? undefined : { error: MigrationError.from(error) };
      this.#first = separate.failure ?? broken ?? (await finishContent(content, file));
      if ('vm' in this.#first) this.#known = this.#first.vm;
      return found;
    } finally {
      if (this.#known === undefined) await content.discard();
    }
  }

  /** The content as the first reading found it. If that failed for a passing reason, such as a full disk, reads the file again. */
  async #openContent(context: WorkContext): Promise<Content> {
    const first = this.#first;
    if (first !== undefined && 'vm' in first) return first;
    if (first?.error instanceof MigrationError) throw first.error;
    const { file, end } = await this.#openKept(context);
    try {
      const vm = await openSavedVm(file, { makeScratch: () => this.#scratch.makeFile(), devices: true });
      return { vm, file };
    } catch (error) {
      await file.close();
      throw error;
    } finally {
      end();
    }
  }

  /** Opens the file to keep it open. The context is that of the first reading, which `end` ends. */
  async #openKept({ signal, progress }: WorkContext): Promise<{ file: MigrationFile; end: () => void }> {
    let meter: Meter | undefined;
    const until = AbortSignal.any([signal, this.#closing.signal]);
    const file = await this.origin.open({ signal: until, onRead: () => meter?.reach(file.reached) });
    meter = new Meter({ progress }, 'reading', file.size);
    const end = () => {
      meter = undefined;
    };
    return { file, end };
  }

  #decodeDevices(): DeviceTree {
    const keyOf = (name: string, instanceId: number, bodyOffset: number) => `${name} ${instanceId} ${bodyOffset}`;
    // If a migration has several streams, only one of them is the main file.
    const elsewhere = new Map(
      this.#inspection?.sections
        .filter(({ source }) => source !== undefined)
        .map((section) => [keyOf(section.name, section.instanceId, bodyOffsetOf(section)), section.source]),
    );
    const sourceOf = ({ name, instanceId, offset }: DeviceState) => elsewhere.get(keyOf(name, instanceId, offset));
    const collected = this.#collected;
    this.#collected = undefined;
    return new DeviceTree(collected?.devices.finish(collected.error).devices ?? [], sourceOf);
  }
}

function layersOf(states: InspectResult['states'], passes: PagePasses): BlockLayers[] {
  return states.map(({ block, states }) => new BlockLayers(block, states, passes.blocks[block.index]));
}

async function finishContent(reading: VmReading, file: MigrationFile): Promise<Content | { error: unknown }> {
  try {
    return { vm: await reading.finish(), file };
  } catch (error) {
    return { error };
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
