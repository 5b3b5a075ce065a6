/**
 * What the two sides of COLO tell each other, over the line of the migration that came before, as QEMU 7.2 does it:
 *
 *     primary                                       secondary
 *                              ←──────────────────── checkpoint-ready: its guest runs
 *     checkpoint-request ────────────────────────→   stops its guest
 *                              ←──────────────────── checkpoint-reply
 *     (stops its guest)
 *     vmstate-send, END of RAM with the dirty pages, EOF
 *     vmstate-size n, then n bytes: devices, EOF ─→
 *                              ←──────────────────── vmstate-received, vmstate-loaded: its guest runs again
 *     (lets its guest run)
 *
 * A message is the be32 of its position in the enum COLOMessage. With multifd the dirty pages go through the channels, whose
 * SYNCs belong to that END.
 */
import { type Connection, PeerError } from '../io/connection.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { FlowItem } from '../vm/flow.ts';
import type { SavedDevices, WritableDevice } from '../vm/saved-vm.ts';
import { ByteWriter } from '../wire/byte-writer.ts';

/** The positions in the enum COLOMessage. */
export const ColoMessage = {
  checkpointReady: 0,
  checkpointRequest: 1,
  checkpointReply: 2,
  vmstateSend: 3,
  vmstateSize: 4,
  vmstateReceived: 5,
  vmstateLoaded: 6,
} as const;

const sectionFull = 4;
const footerMark = 0x7e;
const footerBytes = 5;
const mostDeviceBytes = 1 << 30;

/** A message as bytes. */
export const coloMessage = (message: number): Uint8Array => new ByteWriter().u32(message).bytes();

/** Reads some bytes. Returns how many; 0: the line has ended. */
export type ReadLine = (target: Uint8Array, position: number) => Promise<number> | number;

/** The line of a migration that goes on as COLO, at the secondary side. */
export interface ColoLine {
  line: Connection;
  read: ReadLine;
  /** The pages of a checkpoint, from the main line and the multifd channels. */
  pages(): AsyncIterable<FlowItem>;
  /** Has the bytes of the pages. */
  kernel: Kernel;
}

/** Reads a line in exact pieces. */
export class ColoReader {
  readonly #read: ReadLine;
  #position = 0;

  constructor(read: ReadLine) {
    this.#read = read;
  }

  /** The next bytes. @throws PeerError if the line ends before */
  async take(count: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count; ) {
      const read = await this.#read(bytes.subarray(done), this.#position);
      if (read === 0) throw new PeerError('the other side of COLO has ended the line');
      done += read;
      this.#position += read;
    }
    return bytes;
  }

  async #u32(): Promise<number> {
    return new DataView((await this.take(4)).buffer).getUint32(0);
  }

  async #u64(): Promise<bigint> {
    return new DataView((await this.take(8)).buffer).getBigUint64(0);
  }

  /** The next message must be this one. @throws PeerError */
  async expect(message: number): Promise<void> {
    const got = await this.#u32();
    if (got !== message) throw new PeerError(`Unexpected COLO message ${got}, expected ${message}`);
  }

  /** Reads the devices of a checkpoint. @throws PeerError */
  async devices(before: SavedDevices): Promise<SavedDevices> {
    await this.expect(ColoMessage.vmstateSize);
    const length = await this.#u64();
    if (length > mostDeviceBytes)
      throw new PeerError(`expected at most ${mostDeviceBytes} bytes of devices, got ${length}`);
    return splitDevices(await this.take(Number(length)), before);
  }
}

/** The devices in the sections of a checkpoint. A device ends with its footer; most are as long as they were. */
function splitDevices(bytes: Uint8Array, before: SavedDevices): SavedDevices {
  const view = new DataView(bytes.buffer);
  const devices: WritableDevice[] = [];
  let at = 0;
  while (bytes[at] === sectionFull) {
    const id = view.getUint32(at + 1);
    const nameEnd = at + 6 + (bytes[at + 5] ?? 0);
    const name = new TextDecoder().decode(bytes.subarray(at + 6, nameEnd));
    const [instanceId, versionId] = [view.getUint32(nameEnd), view.getUint32(nameEnd + 4)];
    const start = nameEnd + 8;
    const known = before.devices.find((each) => each.name === name && each.instanceId === instanceId);
    const end = findFooter(bytes, view, { id, start, likely: start + (known?.data.length ?? 0) });
    devices.push({ kind: 'full', id, name, instanceId, versionId, data: bytes.slice(start, end) });
    at = end + footerBytes;
  }
  if (at !== bytes.length - 1 || bytes[at] !== 0)
    throw new PeerError('the devices of a checkpoint do not end in order');
  return { ...before, devices };
}

function findFooter(
  bytes: Uint8Array,
  view: DataView,
  { id, start, likely }: { id: number; start: number; likely: number },
): number {
  const isFooter = (at: number) => {
    const next = at + footerBytes;
    if (next >= bytes.length || bytes[at] !== footerMark || view.getUint32(at + 1) !== id) return false;
    return bytes[next] === sectionFull || (bytes[next] === 0 && next === bytes.length - 1);
  };
  if (isFooter(likely)) return likely;
  for (let at = start; at < bytes.length; at++) if (isFooter(at)) return at;
  throw new PeerError('Missing section footer for a device of a checkpoint');
}
