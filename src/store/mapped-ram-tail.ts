/** What follows the pages in a mapped-ram file: the end of RAM, other iterables, devices and the description. */
import type { Description, SectionKind } from '../vm/flow.ts';
import type { Framing, RawSection, WritableDevice } from '../vm/saved-vm.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { CommandCode, encodeCommand } from '../wire/command.ts';
import { encodeEos } from '../wire/ram-section.ts';
import { encodeFooter, encodeSectionHead } from '../wire/section.ts';
import { SectionType } from '../wire/section-type.ts';
import { encodeDescription } from '../wire/vm-description.ts';

/** What follows the pages. */
export interface MappedRamTail {
  /** Section id of `ram`. */
  ramId: number;
  framing: Pick<Framing, 'footers' | 'switchoverStart'>;
  /** Sections of iterables other than RAM, in stream order. */
  iterables: readonly RawSection[];
  devices: readonly WritableDevice[];
  description: Pick<Description, 'text'> | undefined;
}

/** Encodes everything behind the pages of the last block, in pieces: sections may be larger than memory. */
export async function* encodeMappedRamTail(tail: MappedRamTail): AsyncGenerator<Uint8Array, void> {
  const { ramId, framing, iterables, devices, description } = tail;
  let out = new ByteWriter();
  const take = () => {
    const bytes = out.bytes();
    out = new ByteWriter();
    return bytes;
  };
  const endBody = (id: number) => {
    encodeEos(out);
    if (framing.footers) encodeFooter(out, id);
  };
  async function* passOn(wanted: SectionKind): AsyncGenerator<Uint8Array, void> {
    for (const { kind, bytes, rest } of iterables) {
      if (kind !== wanted) continue;
      out.raw(bytes);
      if (rest === undefined) continue;
      yield take();
      yield* rest();
    }
  }
  endBody(ramId);
  yield* passOn('start');
  yield* passOn('part');
  if (framing.switchoverStart) encodeCommand(out, CommandCode.switchoverStart);
  encodeSectionHead(out, { kind: 'end', id: ramId });
  endBody(ramId);
  yield* passOn('end');
  for (const device of devices) {
    encodeSectionHead(out, device);
    out.raw(device.data);
    if (framing.footers) encodeFooter(out, device.id);
  }
  out.u8(SectionType.eof);
  if (description !== undefined) encodeDescription(out, description.text);
  yield take();
}
