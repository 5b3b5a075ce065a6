/**
 * What a source has said in postcopy besides pages, as a stream that breaks off where the pages go on. A destination that
 * reads it again is where the first one was when its lines broke (docs/formats/postcopy.md, "Recovery"):
 *
 *     header, configuration, OPEN_RETURN_PATH, POSTCOPY_ADVISE
 *     START of RAM with the list of blocks
 *     other iterables, as they came
 *     package { LISTEN, devices, RUN }
 */
import type { Listener } from '../io/connection.ts';
import { connectionPair, listenOn } from '../io/web-connection.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RawSection, SavedVm } from '../vm/saved-vm.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { CommandCode, encodeCommand } from '../wire/command.ts';
import { encodeConfiguration } from '../wire/configuration.ts';
import { encodeBlockEntry, encodeEos, encodeMemSize, ramVersion } from '../wire/ram-section.ts';
import { encodeFooter, encodeSectionHead } from '../wire/section.ts';
import { encodeStreamHeader } from '../wire/stream.ts';

/** What has come of a VM besides pages. */
export interface ComeSoFar extends Pick<SavedVm, 'configuration' | 'devices' | 'framing'> {
  /** All RAM blocks, as the source lists them. */
  blocks: readonly RamBlock[];
  /** Sections of iterables other than RAM, as they came. */
  iterables: readonly RawSection[];
  /** The payload of POSTCOPY_ADVISE. */
  advice: Uint8Array;
}

/** Encodes that stream. */
export function encodeOpening({ configuration, blocks, iterables, devices, framing, advice }: ComeSoFar): Uint8Array {
  const { ramId = 0, footers, switchoverStart } = framing;
  const out = new ByteWriter();
  encodeStreamHeader(out);
  if (configuration !== undefined) encodeConfiguration(out, configuration);
  encodeCommand(out, CommandCode.openReturnPath);
  encodeCommand(out, CommandCode.postcopyAdvise, advice);
  const end = (id: number) => footers && encodeFooter(out, id);
  encodeSectionHead(out, { kind: 'start', id: ramId, name: 'ram', instanceId: 0, versionId: ramVersion });
  encodeMemSize(
    out,
    blocks.reduce((sum, { usedLength }) => sum + usedLength, 0),
  );
  for (const block of blocks) encodeBlockEntry(out, block.idstr, block.usedLength, block);
  encodeEos(out);
  end(ramId);
  for (const { bytes } of iterables) out.raw(bytes);
  if (switchoverStart) encodeCommand(out, CommandCode.switchoverStart);
  const last = packageOf(devices, footers);
  encodeCommand(out, CommandCode.packaged, new ByteWriter().u32(last.length).bytes());
  return out.raw(last).bytes();
}

function packageOf(devices: SavedVm['devices'], footers: boolean): Uint8Array {
  const out = new ByteWriter();
  encodeCommand(out, CommandCode.postcopyListen);
  for (const device of devices) {
    encodeSectionHead(out, device);
    out.raw(device.data);
    if (footers) encodeFooter(out, device.id);
  }
  encodeCommand(out, CommandCode.postcopyRun);
  return out.bytes();
}

/** A source that says it, and breaks off. */
export function replayOpening(opening: Uint8Array): Listener {
  const [here, there] = connectionPair();
  const play = async () => {
    await there.write(opening);
    await there.end();
  };
  const hear = async () => {
    const answers = new Uint8Array(64);
    for (let at = 0, count = 1; count > 0; at += count) count = await there.read(answers, at);
  };
  // The destination may end before it has read all.
  for (const work of [play(), hear()]) work.catch(() => {});
  return listenOn([here]);
}
