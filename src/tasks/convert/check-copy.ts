/**
 * Reads a file that was just written. It must be sound, and have the same blocks, the same device states byte for byte
 * and, if the content can still be read, the same RAM, page by page.
 */
import { EventLoopYield } from '../../io/event-loop-yield.ts';
import { type PageBatch, PageKind } from '../../kernel/page-batch.ts';
import type { MigrationFile } from '../../read/open.ts';
import { type OpenedVm, openRamContent, type SavedVmOptions } from '../../store/ram-content.ts';
import type { DeviceSection } from '../../vm/flow.ts';
import { type FindingCode, formatPlace, incompleteCodes } from '../../vm/migration-error.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';
import { type Verification, verify } from '../inspect/verify.ts';

/** The output is wrong because of a fault of the disk, or of this program. */
export class CopyError extends Error {
  readonly code = 'bad-copy';
}

/**
 * `records` is how many page records of each block were to be written.
 * @throws CopyError
 */
export async function checkCopy(
  copy: MigrationFile,
  vm: SavedVm & Partial<Pick<OpenedVm, 'missing'>>,
  records: readonly number[],
  ram: RamReader | undefined,
): Promise<Verification> {
  let blocks = 0;
  const copied = records.map(() => 0);
  let devices = 0;
  const content = ram === undefined ? undefined : new ContentCheck(copy, ram);
  let text: string | undefined;
  const verification = await verify(copy, {
    async watch(item) {
      if (item.kind === 'block') requireBlock(item.block, vm.ram.blocks[blocks++]);
      else if (item.kind === 'pages') {
        copied[item.block.index] = (copied[item.block.index] ?? 0) + item.batch.count;
        await content?.compare(item.block, item.batch);
      } else if (item.kind === 'device') requireDevice(item.device, vm.devices[devices++]);
      else if (item.kind === 'description') ({ text } = item.description);
    },
  });
  // A copy of a partial file lacks what the file lacks.
  const isAccepted = (code: FindingCode) => vm.missing !== undefined && incompleteCodes.has(code);
  const worst = verification.findings.find(({ severity, code }) => severity === 'error' && !isAccepted(code));
  if (worst !== undefined)
    throw new CopyError(`what was written is bad: ${worst.message} in ${formatPlace(worst.place)}`);
  insist(blocks === vm.ram.blocks.length, `${blocks} RAM blocks, not ${vm.ram.blocks.length}`);
  insist(String(copied) === String(records), `${copied} page records, not ${records}`);
  insist(devices === vm.devices.length, `${devices} device states, not ${vm.devices.length}`);
  insist(text === vm.description?.text, 'another description');
  return verification;
}

function insist(holds: boolean, what: string): void {
  if (!holds) throw new CopyError(`what was written is not what was read: it has ${what}`);
}

function requireBlock({ idstr, usedLength, pageSize }: RamBlock, block: RamBlock | undefined): void {
  const isSame = idstr === block?.idstr && usedLength === block.usedLength && pageSize === block.pageSize;
  insist(isSame, `${idstr} of ${usedLength} bytes in pages of ${pageSize} in the list of RAM blocks`);
}

function requireDevice(copied: DeviceSection, device: DeviceSection | undefined): void {
  const { name, instanceId, versionId, data } = copied;
  const isSame =
    device !== undefined && name === device.name && instanceId === device.instanceId && versionId === device.versionId;
  insist(isSame, `the state of ${name} in another place`);
  const expected = (device as DeviceSection).data;
  insist(data.length === expected.length && data.every((byte, i) => byte === expected[i]), `another state of ${name}`);
}

/** Settles a copy with deltas, and compares its RAM with that of `vm`. @throws CopyError */
export async function compareSettled(
  copy: MigrationFile,
  vm: SavedVm,
  makeScratch: SavedVmOptions['makeScratch'],
): Promise<void> {
  const { kernel, bytes, address, bitmapAddress } = copy.pageSlots;
  // A copy of a partial file is marked as incomplete, and lacks what the file lacks.
  const ram = await openRamContent(copy, { makeScratch, partial: true });
  try {
    for (const block of vm.ram.blocks) {
      const { idstr, pageSize } = block;
      const most = Math.floor(bytes.length / 2 / pageSize);
      for (let page = 0; page < pageCount(block); page += most) {
        const count = Math.min(most, pageCount(block) - page);
        const half = count * pageSize;
        await ram.read(ram.blocks[block.index] as RamBlock, page, bytes.subarray(0, half));
        await vm.ram.read(block, page, bytes.subarray(half, 2 * half));
        const differ = kernel.comparePages(address, address + half, pageSize, count, bitmapAddress);
        insist(differ === 0, `other content in ${differ} of ${count} pages of ${idstr} from page ${page} on`);
      }
    }
  } finally {
    await ram.close();
  }
}

/** Compares the pages of a Flow with a content, batch by batch in the kernel. */
class ContentCheck {
  readonly #copy: MigrationFile;
  readonly #ram: RamReader;
  /** Zeros in both files need no reads, and may take hours. */
  readonly #turns = new EventLoopYield();

  constructor(copy: MigrationFile, ram: RamReader) {
    this.#copy = copy;
    this.#ram = ram;
  }

  async compare({ index, pageSize }: RamBlock, batch: PageBatch): Promise<void> {
    const block = this.#ram.blocks[index] as RamBlock;
    // The last slot is a page of zeros.
    const slots = this.#copy.pageSlots.slots(pageSize) - 1;
    for (let first = 0; first < batch.count; ) {
      const page = batch.page[first] as number;
      let end = first + 1;
      while (end < batch.count && (batch.page[end] as number) < page + slots) end++;
      await this.#compareSpan(block, batch, first, end);
      first = end;
    }
  }

  /** Compares records whose pages are close enough to be read together. */
  async #compareSpan(block: RamBlock, batch: PageBatch, first: number, end: number): Promise<void> {
    const { kernel, bytes, address, sources, pages, bitmapAddress, slots } = this.#slots(block);
    const { pageSize } = block;
    const page = batch.page[first] as number;
    const count = (batch.page[end - 1] as number) - page + 1;
    await this.#turns.after(count * pageSize);
    await this.#ram.read(block, page, bytes.subarray(0, count * pageSize));
    const zero = address + slots * pageSize;
    for (let i = first; i < end; i++) {
      sources[i - first] = batch.kind[i] === PageKind.zero ? zero : (batch.data[i] as number);
      pages[i - first] = address + ((batch.page[i] as number) - page) * pageSize;
    }
    const differ = kernel.comparePagesGather(
      sources.byteOffset,
      pages.byteOffset,
      pageSize,
      end - first,
      bitmapAddress,
    );
    insist(differ === 0, `other content in ${differ} of ${end - first} pages of ${block.idstr} from page ${page} on`);
  }

  #slots({ pageSize }: RamBlock) {
    const { kernel, bytes, address, sources, pages, bitmapAddress } = this.#copy.pageSlots;
    const slots = this.#copy.pageSlots.slots(pageSize) - 1;
    bytes.fill(0, slots * pageSize, (slots + 1) * pageSize);
    return { kernel, bytes, address, sources, pages, bitmapAddress, slots };
  }
}
