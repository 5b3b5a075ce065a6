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

/** Encodes everything behind the pages of the last block. */
export function encodeMappedRamTail(tail: MappedRamTail): Uint8Array {
  const { ramId, framing, iterables, devices, description } = tail;
  const out = new ByteWriter();
  const endBody = (id: number) => {
    encodeEos(out);
    if (framing.footers) encodeFooter(out, id);
  };
  const passOn = (...kinds: SectionKind[]) => {
    for (const { kind, bytes } of iterables) if (kinds.includes(kind)) out.raw(bytes);
  };
  endBody(ramId);
  passOn('start');
  passOn('part');
  if (framing.switchoverStart) encodeCommand(out, CommandCode.switchoverStart);
  encodeSectionHead(out, { kind: 'end', id: ramId });
  endBody(ramId);
  passOn('end');
  for (const device of devices) {
    encodeSectionHead(out, device);
    out.raw(device.data);
    if (framing.footers) encodeFooter(out, device.id);
  }
  out.u8(SectionType.eof);
  if (description !== undefined) encodeDescription(out, description.text);
  return out.bytes();
}
