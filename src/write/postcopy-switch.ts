/**
 * What a source writes where it switches to postcopy (docs/formats/postcopy.md, "The main channel"):
 *
 *     POSTCOPY_RAM_DISCARD*    the pages that are still to come, at most 12 ranges each
 *     PING 2
 *     PACKAGED N, then N bytes: POSTCOPY_LISTEN, devices, PING 3, POSTCOPY_RUN
 *     PING 4
 */
import type { PageBitmap } from '../vm/page-bitmap.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { WritableDevice } from '../vm/saved-vm.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { CommandCode, encodeCommand } from '../wire/command.ts';
import { encodeDiscard } from '../wire/postcopy.ts';
import { encodeFooter, encodeSectionHead } from '../wire/section.ts';
import type { StreamWriter } from './stream-writer.ts';

/** The most ranges of a discard. */
const maxRanges = 12;
/** The most bytes of a package that a destination takes. */
const maxPackageBytes = 1 << 24;

/** The payload of POSTCOPY_ADVISE: the page sizes of the host, as one number, and that of the target. */
export function encodeAdvise(blocks: readonly RamBlock[], pageSize: number): Uint8Array {
  const sizes = blocks.reduce((all, { hostPageSize = pageSize }) => all | BigInt(hostPageSize), 0n);
  return new ByteWriter().u64(sizes).u64(pageSize).bytes();
}

/** Makes a host page dirty as a whole if one of its target pages is: a destination places whole host pages. */
export function widenToHostPages({ hostPageSize, pageSize }: RamBlock, dirty: PageBitmap): void {
  const step = (hostPageSize ?? pageSize) / pageSize;
  if (step <= 1) return;
  for (let page = dirty.nextSet(0); page < dirty.pages; ) {
    const first = page - (page % step);
    const end = Math.min(first + step, dirty.pages);
    for (let each = first; each < end; each++) dirty.set(each);
    page = dirty.nextSet(end);
  }
}

/** The payloads of the discards of a block, for all its dirty pages. */
export function* discardsOf({ idstr, pageSize }: RamBlock, dirty: PageBitmap): Generator<Uint8Array, void> {
  let ranges: { start: bigint; length: bigint }[] = [];
  for (let first = dirty.nextSet(0); first < dirty.pages; ) {
    const end = dirty.nextClear(first);
    ranges.push({ start: BigInt(first * pageSize), length: BigInt((end - first) * pageSize) });
    if (ranges.length === maxRanges) {
      yield encodeDiscard({ idstr, ranges });
      ranges = [];
    }
    first = dirty.nextSet(end);
  }
  if (ranges.length > 0) yield encodeDiscard({ idstr, ranges });
}

/**
 * Writes the package with the devices, and the pings around it, so that everything has left. `beforePackage` is called
 * when everything before it has left.
 * @throws RangeError for devices that are too large for a package
 */
export async function writePackage(
  writer: StreamWriter,
  devices: readonly WritableDevice[],
  beforePackage: () => Promise<void> | void,
): Promise<void> {
  const out = new ByteWriter();
  encodeCommand(out, CommandCode.postcopyListen);
  for (const device of devices) {
    encodeSectionHead(out, device);
    out.raw(device.data);
    if (writer.footers) encodeFooter(out, device.id);
  }
  encodeCommand(out, CommandCode.ping, word(3));
  encodeCommand(out, CommandCode.postcopyRun);
  if (out.length > maxPackageBytes) {
    throw new RangeError(`expected devices of at most ${maxPackageBytes} bytes for postcopy, got ${out.length}`);
  }
  await writer.command(CommandCode.ping, word(2));
  await writer.flush();
  await beforePackage();
  await writer.command(CommandCode.packaged, word(out.length));
  await writer.raw(out.bytes());
  await writer.command(CommandCode.ping, word(4));
  await writer.flush();
}

const word = (value: number) => new ByteWriter().u32(value).bytes();
