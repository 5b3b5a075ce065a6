/**
 * The VM description (docs/formats/stream.md, "VM description"): u8 0x06 | be32 length | JSON, last in the stream. It
 * names every device section and its fields with their sizes. Only these sizes show exactly where a device's state
 * ends. This file finds the description and extracts what framing needs. `device-description.ts` parses the JSON.
 */

import { bodySize } from '../devices/body-size.ts';
import { parseVmDescription } from '../devices/device-description.ts';
import { incompleteKey, type VmDescription } from '../vm/description.ts';
import type { Description } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { type ByteWindow, type Need, takeBytes, takeU32 } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';
import { SectionType } from './section-type.ts';

/** The largest description accepted, in bytes. QEMU's are from 0.5 kB to 100 kB. */
const maxDescription = 32 * 1024 * 1024;

/** A description, as found and parsed. */
export interface FoundDescription {
  text: string;
  parsed: VmDescription;
  problems: string[];
}

/**
 * Decodes a description whose type byte has been read. If the description was already `found`, it is not parsed again.
 */
export function* decodeDescription(
  window: ByteWindow,
  found?: FoundDescription,
): Generator<Need, { description: Description; problems: string[] }> {
  const offset = window.offset - 1;
  const length = yield* takeU32(window, 'the length of the VM description');
  if (length > maxDescription) {
    const message = `expected a VM description of at most ${maxDescription} bytes, got ${length}`;
    throw new MigrationError('limit-exceeded', message, window.place(offset));
  }
  const text = new TextDecoder().decode(yield* takeBytes(window, length, 'the VM description'));
  const { parsed, problems } = found?.text === text ? found : parseText(text);
  return { description: makeDescription(offset, length, text, parsed), problems };
}

function parseText(text: string): { parsed: VmDescription | undefined; problems: string[] } {
  const { description, problems } = parseVmDescription(text) ?? {};
  return { parsed: description, problems: problems ?? ['expected JSON in the VM description'] };
}

/** A description whose JSON is parsed on first access. */
function makeDescription(
  offset: number,
  length: number,
  text: string,
  parsed = parseVmDescription(text)?.description,
): Description {
  return {
    offset,
    length,
    text,
    parsed,
    get value() {
      return parsed === undefined ? undefined : JSON.parse(text);
    },
  };
}

/** Whether a description can begin at index `at` of the window: its type byte, a length, and JSON. */
export function canBeDescription({ bytes, view, limit }: ByteWindow, at: number): boolean {
  if (at + 6 > limit || bytes[at] !== SectionType.description) return false;
  return bytes[at + 5] === 0x7b && view.getUint32(at + 1) <= maxDescription;
}

/** Encodes the description (JSON) that follows the EOF of a stream, including its type byte. */
export function encodeDescription(out: ByteWriter, text: string): void {
  const bytes = new TextEncoder().encode(text);
  out.u8(SectionType.description).u32(bytes.length).raw(bytes);
}

/** Marks a description, or makes one, with what the file lacks. */
export function markIncomplete(description: Description | undefined, what: string): Description {
  const mark = `"${incompleteKey}": ${JSON.stringify(what)}`;
  const { parsed, text = '', offset = 0 } = description ?? {};
  const isObject = parsed !== undefined && /^\s*\{/.test(text);
  const marked = isObject ? text.replace('{', () => `{${mark}, `) : `{${mark}}`;
  return makeDescription(offset, new TextEncoder().encode(marked).length, marked);
}

/**
 * The most places tried at the end of a file. Bytes that look like the head of a description are rare, except in
 * malicious files.
 */
const maxCandidates = 16;

/**
 * Finds the description in the last bytes of a source: the last 0x06 byte whose length reaches exactly to the end and
 * which JSON follows. Returns undefined if `tail` contains none.
 */
export function findDescription(tail: Uint8Array): ({ index: number } & FoundDescription) | undefined {
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  let candidates = 0;
  let index = tail.length - 6;
  for (; candidates < maxCandidates; index--) {
    if (index >= 0) index = tail.lastIndexOf(SectionType.description, index);
    if (index < 0) return undefined;
    if (tail[index + 5] !== 0x7b) continue;
    if (index + 5 + view.getUint32(index + 1) !== tail.length) continue;
    candidates++;
    const text = new TextDecoder().decode(tail.subarray(index + 5));
    const { parsed, problems } = parseText(text);
    if (parsed !== undefined) return { index, text, parsed, problems };
  }
  return undefined;
}

/** What framing uses from a description. */
export interface DeviceSizes {
  /** The description that the sizes come from, if it was found at the end of the source. */
  found?: FoundDescription;
  /** The offset of that description in the source. */
  offset?: number;
  /** Target page size in bytes, if stated plausibly. */
  pageSize: number | undefined;
  /** Devices in stream order. `size` is undefined if the description does not determine it. */
  devices: { name: string; instanceId: number; version: number | undefined; size: number | undefined }[];
}

/** Reads names, versions and body sizes (bytes, without head and footer) of all devices. */
export function readDeviceSizes({ pageSize, devices }: VmDescription): DeviceSizes {
  return {
    pageSize,
    devices: devices.map((device) => ({
      name: device.name,
      instanceId: device.instanceId,
      version: device.version,
      size: bodySize(device),
    })),
  };
}
