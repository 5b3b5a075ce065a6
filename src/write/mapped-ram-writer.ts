/**
 * Writes a guest that may be running as a mapped-ram file (docs/formats/mapped-ram.md): every pass puts its pages into their
 * fixed places, so the file does not grow with the passes. It takes what `Passes` sends, in place of a `StreamWriter`.
 */
import type { ByteStore } from '../io/byte-source.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import { PageSlots, pageSlotsArenaBytes } from '../kernel/page-slots.ts';
import { defaultRamId, MappedRamStore } from '../store/mapped-ram-store.ts';
import type { Configuration, SectionKind } from '../vm/flow.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { Framing, RawSection, WritableDevice } from '../vm/saved-vm.ts';
import { CommandCode } from '../wire/command.ts';
import { SectionType } from '../wire/section-type.ts';
import type { RamWriter, VmWriter } from './passes.ts';

/** The most data pages in a batch: those of a window with the smallest pages. */
const batchPages = 1024;
/** Bytes of the EOS of a PART. */
const eosBytes = 8;
/** Arena bytes that a writer needs. */
export const mappedRamArenaBytes = pageSlotsArenaBytes(batchPages);

export interface MappedRamWriterOptions {
  /** Where the stream begins in the file, in bytes. Default 0. */
  offset?: number | undefined;
  /** How the VM's own stream was put together. */
  framing?: Framing | undefined;
}

const kinds: Record<number, SectionKind> = {
  [SectionType.start]: 'start',
  [SectionType.part]: 'part',
  [SectionType.end]: 'end',
};

export class MappedRamWriter implements VmWriter, RamWriter {
  readonly kernel: Kernel;
  readonly ramId: number;
  /** The file, with readable content. */
  readonly store: MappedRamStore;
  /** Bytes of pages so far, of all passes together, with what QEMU counts besides: 8 for each PART, and the bitmaps. */
  ramBytes = 0;
  #hasPart = false;
  readonly #footers: boolean;
  readonly #iterables: RawSection[] = [];
  readonly #devices: WritableDevice[] = [];
  #switchoverStart = false;

  /** Allocates {@link mappedRamArenaBytes} in the arena. */
  constructor(kernel: Kernel, file: ByteStore, { offset = 0, framing }: MappedRamWriterOptions = {}) {
    this.kernel = kernel;
    this.ramId = framing?.ramId ?? defaultRamId;
    this.#footers = framing?.footers ?? true;
    this.store = new MappedRamStore(file, new PageSlots(kernel, batchPages), { offset });
    this.store.startRam({ id: this.ramId });
  }

  /** Bytes made so far. */
  get length(): number {
    return this.ramBytes;
  }

  /** @throws RangeError for a VM without a configuration, which marks a file as mapped-ram */
  async begin(configuration: Configuration | undefined): Promise<void> {
    if (configuration === undefined) throw new RangeError('expected a VM with a configuration, got one without');
    this.store.configure(configuration);
  }

  /** Takes the command that marks the switchover. No other has a place in a file. */
  async command(code: number): Promise<void> {
    if (code !== CommandCode.switchoverStart) throw new RangeError(`expected SWITCHOVER_START, got command ${code}`);
    this.#switchoverStart = true;
  }

  async startRam(blocks: readonly RamBlock[]): Promise<void> {
    for (const block of blocks) await this.store.addBlock(block);
  }

  async pages({ index, idstr }: RamBlock, batch: PageBatch): Promise<void> {
    const block = this.store.blocks[index];
    if (block === undefined) throw new RangeError(`expected a RAM block that was listed, got "${idstr}"`);
    await this.store.apply(block, batch);
    this.#hasPart = true;
    for (let i = 0; i < batch.count; i++) if (batch.kind[i] === PageKind.data) this.ramBytes += block.pageSize;
  }

  async endPart(): Promise<void> {
    if (this.#hasPart) this.ramBytes += eosBytes;
    this.#hasPart = false;
  }

  async beginEnd(): Promise<void> {}

  async endRam(): Promise<void> {
    for (const { mapped } of this.store.blocks) this.ramBytes += mapped?.bitmapLength ?? 0;
  }

  /** A file always has its bitmaps, and so an END of RAM. */
  async omitRamEnd(): Promise<void> {}

  /** Pages have no names here. */
  names(): boolean {
    return false;
  }

  /** Keeps a section of another iterable, whose first byte says which it is, until the end. */
  async raw(bytes: Uint8Array, rest?: RawSection['rest']): Promise<void> {
    this.#iterables.push({ kind: kinds[bytes[0] as number] ?? 'part', bytes, ...(rest === undefined ? {} : { rest }) });
  }

  async device(device: WritableDevice): Promise<void> {
    this.#devices.push(device);
  }

  /** What was written is in the file. */
  async flush(): Promise<void> {}

  /** Ends the file: the bitmaps, the devices, the description, and last what makes it complete. */
  async finish(description?: string): Promise<void> {
    await this.store.finish(this.#devices, description === undefined ? undefined : { text: description }, {
      framing: { footers: this.#footers, switchoverStart: this.#switchoverStart },
      iterables: this.#iterables,
    });
  }
}
