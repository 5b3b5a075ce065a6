import { commandLengths } from './commands.ts';
import type { Cursor } from './cursor.ts';

/**
 * Finds where the body of a device's section ends. Bodies have no length, so there are two sources: the VMDESCRIPTION
 * at the end of the file, and a footer with a plausible item behind it.
 */

const FOOTER = 0x7e;
const FOOTER_BYTES = 5;

/** Finds the VMDESCRIPTION from the end of the file; trailing zeros are padding of the container. */
export function findVmDescription(bytes: Uint8Array, from: number): unknown {
  let end = bytes.length;
  while (end > from && bytes[end - 1] === 0) end--;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = end - 6; at >= from; at--) {
    if (bytes[at] !== 0x06 || view.getUint32(at + 1) !== end - (at + 5) || bytes[at + 5] !== 0x7b) continue;
    try {
      return JSON.parse(Buffer.from(bytes.subarray(at + 5, end)).toString('utf8'));
    } catch {
      // A coincidence; continue the search.
    }
  }
  return undefined;
}

/** The length of a device's body by its description, or undefined without one. */
export function describedSize(vmdescription: unknown, name: string, instanceId: number): number | undefined {
  const devices = arrayOf(vmdescription, 'devices');
  const device = devices.find(
    (each) => property(each, 'name') === name && property(each, 'instance_id') === instanceId,
  );
  if (device === undefined) return undefined;

  let size = 0;
  const descriptions: unknown[] = [device];
  for (let next = descriptions.pop(); next !== undefined; next = descriptions.pop()) {
    for (const field of arrayOf(next, 'fields')) {
      // The size of a struct includes everything nested in it, including its subsections.
      size += Number(property(field, 'size')) * Number(property(field, 'array_len') ?? 1);
    }
    for (const subsection of arrayOf(next, 'subsections')) {
      const subsectionName = String(property(subsection, 'vmsd_name'));
      size += 1 + 1 + subsectionName.length + 4; // 0x05, counted name, be32 version
      descriptions.push(subsection);
    }
  }
  return Number.isSafeInteger(size) && size >= 0 ? size : undefined;
}

function property(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}

function arrayOf(value: unknown, key: string): unknown[] {
  const array = property(value, key);
  return Array.isArray(array) ? array : [];
}

/** Checks without reading: can an item start here? */
export class ItemFinder {
  private readonly cursor: Cursor;
  private readonly isKnownId: (id: number) => boolean;
  private readonly hasEnded: () => boolean;

  /** `hasEnded` says whether an iterable has ended: then none of its items can start. */
  constructor(cursor: Cursor, isKnownId: (id: number) => boolean, hasEnded: () => boolean) {
    this.cursor = cursor;
    this.isKnownId = isKnownId;
    this.hasEnded = hasEnded;
  }

  isFooterAt(at: number, sectionId: number): boolean {
    return at + FOOTER_BYTES <= this.cursor.limit && this.cursor.bytes[at] === FOOTER && this.u32(at + 1) === sectionId;
  }

  /** The first footer of the section at or behind `start` that is followed by an item. */
  footerAfter(start: number, sectionId: number, isPackage: boolean): number | undefined {
    for (let at = start; at < this.cursor.limit; at++) {
      if (this.isFooterAt(at, sectionId) && this.isItemAt(at + FOOTER_BYTES, isPackage)) return at;
    }
    return undefined;
  }

  /** Without footers: the first place at or behind `start` that looks like the next item. A guess. */
  nextItemAfter(start: number, isPackage: boolean): number | undefined {
    const { bytes, limit } = this.cursor;
    for (let at = start; at < limit; at++) {
      // An id in use would be an error there, and small numbers are common in devices.
      // Real ids are small; in false matches, the 0x05 of a subsection is the last byte.
      const isPossible = this.isNewSectionAt(at) && !(bytes[at] === 0x01 && this.hasEnded());
      if (isPossible && !this.isKnownId(this.u32(at + 1)) && this.u32(at + 1) <= 0xffff) return at;
      if (bytes[at] === 0x00 && (at + 1 === limit || this.isVmDescriptionAt(at + 1))) return at;
      // In a package, commands follow the devices.
      if (isPackage && this.isCommandAt(at)) return at;
    }
    return undefined;
  }

  /** 0x08, be16 command, and the be16 length that this command has. */
  private isCommandAt(at: number): boolean {
    if (at + 5 > this.cursor.limit || this.cursor.bytes[at] !== 0x08) return false;
    const commandAndLength = this.u32(at + 1);
    const lengths = commandLengths.get(commandAndLength >>> 16) ?? [];
    return lengths.includes(commandAndLength & 0xffff);
  }

  /** 0x06, a be32 length that fits the file, and a brace: 0x00 0x06 alone is common inside devices. */
  private isVmDescriptionAt(at: number): boolean {
    const { bytes, limit } = this.cursor;
    return at + 6 <= limit && bytes[at] === 0x06 && at + 5 + this.u32(at + 1) <= limit && bytes[at + 5] === 0x7b;
  }

  /**
   * 0x00, followed by the end, a description, or at least 64 zeros of padding: a small number, as in a timer, followed
   * by zeros looks like a footer of section 0 and an EOF.
   */
  private isEndOfStreamAt(at: number): boolean {
    const { bytes, limit } = this.cursor;
    if (at + 1 === limit || this.isVmDescriptionAt(at + 1)) return true;
    return bytes.subarray(at + 1, Math.min(limit, at + 65)).every((byte) => byte === 0);
  }

  private isItemAt(at: number, isPackage: boolean): boolean {
    const { bytes, limit } = this.cursor;
    if (at === limit) return isPackage;
    switch (bytes[at]) {
      case 0x00:
        return !isPackage && this.isEndOfStreamAt(at);
      case 0x01:
      case 0x04:
        return this.isNewSectionAt(at);
      case 0x02:
      case 0x03:
        return at + 5 <= limit && this.isKnownId(this.u32(at + 1));
      case 0x08: {
        if (at + 3 > limit) return false;
        const command = bytes[at + 1]! * 256 + bytes[at + 2]!;
        return command >= 1 && command <= 11;
      }
      default:
        return false;
    }
  }

  /** 0x01 or 0x04, be32 id, a printable counted name, be32 instance, be32 version. */
  private isNewSectionAt(at: number): boolean {
    const { bytes, limit } = this.cursor;
    if (bytes[at] !== 0x01 && bytes[at] !== 0x04) return false;
    const nameAt = at + 6;
    if (nameAt > limit) return false;
    const nameLength = bytes[nameAt - 1]!;
    if (nameLength === 0 || nameAt + nameLength + 8 > limit) return false;
    return bytes.subarray(nameAt, nameAt + nameLength).every((byte) => byte >= 0x20 && byte <= 0x7e);
  }

  private u32(at: number): number {
    const { bytes } = this.cursor;
    return new DataView(bytes.buffer, bytes.byteOffset + at, 4).getUint32(0);
  }
}
