/**
 * The head of a libvirt save image (docs/formats/libvirt.md): 92 bytes, then a data area with the domain's XML and a
 * cookie, then a QEMU stream. Integers are in the byte order of the host that saved:
 *
 *     0    16  magic           LibvirtQemudSave, or LibvirtQemudPart while it is being written
 *     16    4  version         1 or 2
 *     20    4  data length     of the data area
 *     24    4  was running     1 = resume after restore
 *     28    4  format          of the stream; only in version 2
 *     32    4  cookie offset   in the data area; 0 = no cookie
 *     36   56  unused          0
 *
 * Only three facts in the XML are used: those that name the domain.
 */
import { MigrationError, type Place } from '../../vm/migration-error.ts';

export const libvirtHeaderLength = 92;
/** The most bytes of XML, cookie and padding. libvirt itself accepts no XML over 4 MiB. */
const maxDataLength = 16 << 20;

const magics = { finished: 'LibvirtQemudSave', unfinished: 'LibvirtQemudPart' } as const;

/** How the stream is stored; the index is the number in the header. */
export const libvirtFormats = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd', 'sparse'] as const;
/** How a libvirt save image stores its stream. */
export type LibvirtFormat = (typeof libvirtFormats)[number];

/** The header of a libvirt save image. */
export interface LibvirtHeader {
  /** The image was written to its end. */
  isFinished: boolean;
  version: number;
  byteOrder: 'little' | 'big';
  /** Bytes between this header and the stream. */
  dataLength: number;
  /** The guest was running when it was saved. */
  wasRunning: boolean;
  format: LibvirtFormat;
  /** Where the cookie begins in the data area; 0 = no cookie. */
  cookieOffset: number;
}

/** The texts of the data area. */
export interface LibvirtData {
  /** The domain XML. */
  xml: string;
  /** Further XML that libvirt needs to restore the domain. */
  cookie: string | undefined;
}

/** Whether bytes begin like a save image. */
export function isLibvirtMagic(bytes: Uint8Array): boolean {
  const magic = String.fromCharCode(...bytes.subarray(0, 16));
  return magic === magics.finished || magic === magics.unfinished;
}

/**
 * Decodes the 92 bytes of a header. `place` is their place.
 * @throws MigrationError `bad-libvirt-header` for a contradiction, `unsupported` for another version or format,
 *   `limit-exceeded` for a data area over {@link maxDataLength}.
 */
export function decodeLibvirtHeader(bytes: Uint8Array, place: Place): LibvirtHeader {
  const fail = (message: string, at: number, code: MigrationError['code'] = 'bad-libvirt-header') =>
    new MigrationError(code, message, { ...place, offset: place.offset + at });
  if (!isLibvirtMagic(bytes)) throw fail('expected the magic of a libvirt save image', 0);
  const view = new DataView(bytes.buffer, bytes.byteOffset, libvirtHeaderLength);
  // Versions are small: a large one is in the other byte order.
  const isLittle = view.getUint32(16, true) <= 2;
  const word = (at: number) => view.getUint32(at, isLittle);
  const version = word(16);
  if (version < 1 || version > 2) {
    throw fail(`expected version 1 or 2 of a libvirt save image, got ${view.getUint32(16, true)}`, 16, 'unsupported');
  }
  const dataLength = word(20);
  if (dataLength === 0) throw fail('expected a domain XML, got none', 20);
  if (dataLength > maxDataLength) {
    throw fail(`expected at most ${maxDataLength} bytes of domain XML, got ${dataLength}`, 20, 'limit-exceeded');
  }
  const format = libvirtFormats[version === 1 ? 0 : word(28)];
  if (format === undefined) throw fail(`expected a format from 0 to 6, got ${word(28)}`, 28, 'unsupported');
  const cookieOffset = word(32);
  if (cookieOffset >= dataLength) {
    throw fail(`expected a cookie within ${dataLength} bytes of data, got one at ${cookieOffset}`, 32);
  }
  const isFinished = String.fromCharCode(...bytes.subarray(0, 16)) === magics.finished;
  const byteOrder = isLittle ? 'little' : 'big';
  return { isFinished, version, byteOrder, dataLength, wasRunning: word(24) !== 0, format, cookieOffset };
}

/**
 * Decodes the data area, whose length the header states. `place` is its place.
 * @throws MigrationError `bad-libvirt-header` if the XML does not end within its part.
 */
export function decodeLibvirtData(bytes: Uint8Array, header: LibvirtHeader, place: Place): LibvirtData {
  const { cookieOffset } = header;
  const area = cookieOffset === 0 ? bytes : bytes.subarray(0, cookieOffset);
  const end = area.indexOf(0);
  if (end <= 0) {
    const message = `expected a domain XML that ends within ${area.length} bytes, got ${end < 0 ? 'no end' : 'an empty one'}`;
    throw new MigrationError('bad-libvirt-header', message, place);
  }
  const xml = decodeText(area.subarray(0, end));
  if (cookieOffset === 0) return { xml, cookie: undefined };
  const rest = bytes.subarray(cookieOffset);
  const cookieEnd = rest.indexOf(0);
  return { xml, cookie: decodeText(cookieEnd < 0 ? rest : rest.subarray(0, cookieEnd)) };
}

const decodeText = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

export interface LibvirtImageHead extends LibvirtData {
  format: LibvirtFormat;
  wasRunning: boolean;
  /** Zeros after the texts, which allow editing the XML in place. Default 64 KiB, as in libvirt. */
  padding?: number;
  byteOrder?: 'little' | 'big';
  isFinished?: boolean;
}

/** Encodes the header and the data area of an image. The stream follows directly. */
export function encodeLibvirtHead(head: LibvirtImageHead): Uint8Array {
  if (!libvirtFormats.includes(head.format)) {
    throw new RangeError(`expected a format of ${libvirtFormats.join(', ')}, got ${head.format}`);
  }
  const { xml, cookie, format, wasRunning, padding = 64 * 1024, byteOrder = 'little', isFinished = true } = head;
  const encoder = new TextEncoder();
  const text = encoder.encode(`${xml}\0${cookie === undefined ? '' : `${cookie}\0`}`);
  const dataLength = text.length + padding;
  if (dataLength > maxDataLength) throw new RangeError(`expected at most ${maxDataLength} bytes, got ${dataLength}`);
  const bytes = new Uint8Array(libvirtHeaderLength + dataLength);
  bytes.set(encoder.encode(isFinished ? magics.finished : magics.unfinished));
  const view = new DataView(bytes.buffer);
  const cookieOffset = cookie === undefined ? 0 : encoder.encode(xml).length + 1;
  const words = [2, dataLength, wasRunning ? 1 : 0, libvirtFormats.indexOf(format), cookieOffset];
  for (const [i, word] of words.entries()) view.setUint32(16 + 4 * i, word, byteOrder === 'little');
  bytes.set(text, libvirtHeaderLength);
  return bytes;
}

/** The facts that name a domain, as far as its XML states them in the usual form. */
export interface Domain {
  /** The kind of hypervisor, such as `kvm` or `qemu`. */
  type: string | undefined;
  name: string | undefined;
  uuid: string | undefined;
}

/** How many bytes of the XML are searched for the facts, which are in its first elements. */
const domainScanLength = 16 * 1024;

/**
 * Finds the facts that name the domain. This is not an XML parser: in XML that libvirt did not write, it may find
 * nothing.
 */
export function findDomain(xml: string): Domain {
  const head = xml.slice(0, domainScanLength);
  const find = (pattern: RegExp) => {
    const text = pattern.exec(head)?.[1];
    return text === undefined ? undefined : unescapeXml(text);
  };
  return {
    type: find(/<domain\b[^>]*?\stype=["']([^"'<]*)["']/),
    name: find(/<name>([^<]*)<\/name>/),
    uuid: find(/<uuid>([^<]*)<\/uuid>/),
  };
}

const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function unescapeXml(text: string): string {
  return text.replace(/&(amp|lt|gt|quot|apos);/g, (_, name: string) => entities[name] as string);
}
