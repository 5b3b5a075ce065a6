/**
 * The VM description (docs/formats/stream.md, "VM description"): u8 0x06 | be32 length | JSON, last in the stream.
 * It names every device section and its fields with their sizes, which is the only exact way to know where a
 * device's state ends. This file finds it, reads what framing needs of it, and leaves decoding of fields to others.
 */
import type { Description } from '../vm/flow.ts';
import { type ByteWindow, takeBytes, takeU32, type Want } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';
import { MigrationError } from './migration-error.ts';
import { SectionType } from './section-type.ts';

/** The largest description accepted, in bytes. QEMU's are from 0.5 kB to 100 kB. */
export const maxDescription = 32 * 1024 * 1024;
/** The deepest nesting parsed. QEMU's is below 20. */
const maxDepth = 64;

/** Decodes a description; its type byte has been read. What is no JSON, or too deep, has no `value`. */
export function* decodeDescription(window: ByteWindow): Generator<Want, Description> {
  const offset = window.offset - 1;
  const length = yield* takeU32(window, 'the length of the VM description');
  if (length > maxDescription) {
    const message = `expected a VM description of at most ${maxDescription} bytes, got ${length}`;
    throw new MigrationError('limit-exceeded', message, window.place(offset));
  }
  const bytes = yield* takeBytes(window, length, 'the VM description');
  const text = new TextDecoder().decode(bytes);
  return { offset, length, text, value: parseDescription(text)?.value };
}

/** Parses the JSON; undefined if it is not JSON or nested too deeply to be a description. */
export function parseDescription(text: string): { value: unknown } | undefined {
  if (!isNestedWithin(text, maxDepth)) return undefined;
  try {
    return { value: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

/** Whether brackets outside strings nest at most `limit` deep: checked first, since a parser may recurse. */
function isNestedWithin(text: string, limit: number): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (inString) {
      if (char === 0x5c) i++;
      else if (char === 0x22) inString = false;
    } else if (char === 0x22) inString = true;
    else if (char === 0x7b || char === 0x5b) {
      if (++depth > limit) return false;
    } else if (char === 0x7d || char === 0x5d) depth--;
  }
  return true;
}

/** Whether a description can begin at index `at` of the window: its type byte, a length, and JSON. */
export function canBeDescription({ bytes, view, limit }: ByteWindow, at: number): boolean {
  if (at + 6 > limit || bytes[at] !== SectionType.description) return false;
  return bytes[at + 5] === 0x7b && view.getUint32(at + 1) <= maxDescription;
}

export function encodeDescription(out: ByteWriter, text: string): void {
  const bytes = new TextEncoder().encode(text);
  out.u8(SectionType.description).u32(bytes.length).raw(bytes);
}

/** Places tried at the end of a file. Bytes that look like the head of a description are rare, unless someone made them. */
const maxCandidates = 16;

/**
 * Finds the description in the last bytes of a source: the latest index of a 0x06 whose length reaches exactly the
 * end and which is followed by JSON. Undefined if there is none in `tail`.
 */
export function findDescription(tail: Uint8Array): { index: number; value: unknown } | undefined {
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  let candidates = 0;
  let index = tail.length - 6;
  for (; candidates < maxCandidates; index--) {
    if (index >= 0) index = tail.lastIndexOf(SectionType.description, index);
    if (index < 0) return undefined;
    if (tail[index + 5] !== 0x7b) continue;
    if (index + 5 + view.getUint32(index + 1) !== tail.length) continue;
    candidates++;
    const parsed = parseDescription(new TextDecoder().decode(tail.subarray(index + 5)));
    if (parsed !== undefined) return { index, value: parsed.value };
  }
  return undefined;
}

/** What framing uses of a description. */
export interface DeviceSizes {
  /** Target page size in bytes, if stated plausibly. */
  pageSize: number | undefined;
  /** Devices in stream order. `size` is undefined where the description cannot say. */
  devices: { name: string; instanceId: number; version: number | undefined; size: number | undefined }[];
}

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Reads names, versions and body sizes (bytes, without head and footer) of all devices. */
export function readDeviceSizes(value: unknown): DeviceSizes {
  const root = isObject(value) ? value : {};
  const pageSize = root.page_size;
  const plausible = isCount(pageSize) && pageSize >= 1024 && pageSize <= 65536 && Number.isInteger(Math.log2(pageSize));
  const devices = Array.isArray(root.devices) ? root.devices : [];
  return {
    pageSize: plausible ? pageSize : undefined,
    devices: devices.filter(isObject).map((device) => ({
      name: typeof device.name === 'string' ? device.name : '',
      instanceId: isCount(device.instance_id) ? device.instance_id : 0,
      version: isCount(device.version) ? device.version : undefined,
      size: bodySize(device),
    })),
  };
}

/** Bytes of a description's fields and subsections; undefined if a size is missing or absurd. */
function bodySize(description: Json): number | undefined {
  let size = 0;
  const fields = description.fields ?? [];
  const subsections = description.subsections ?? [];
  if (!Array.isArray(fields) || !Array.isArray(subsections)) return undefined;
  for (const field of fields) {
    if (!isObject(field) || !isCount(field.size)) return undefined;
    const elements = field.array_len ?? 1;
    if (!isCount(elements)) return undefined;
    size += field.size * elements;
  }
  for (const subsection of subsections) {
    if (!isObject(subsection)) return undefined;
    const name = subsection.vmsd_name;
    const inner = bodySize(subsection);
    if (typeof name !== 'string' || inner === undefined) return undefined;
    // 0x05, a counted name and a version come before a subsection's fields.
    size += 1 + 1 + name.length + 4 + inner;
  }
  return Number.isSafeInteger(size) ? size : undefined;
}
