/**
 * What can be wrong with a migration file, and where: the stable codes, places, findings and the error class.
 *
 * A finding is something a reader noticed and could read past; a {@link MigrationError} is one that made the rest
 * unreadable, or that the caller's work cannot tolerate. Misuse of the API is a TypeError or RangeError instead.
 */

/** How bad a finding is. `error`: QEMU would refuse the file or its content cannot be trusted; `warning`: unusual. */
export type Severity = 'error' | 'warning' | 'info';

/** Where something is, as precisely as it is known. */
export interface Place {
  /** The file, pipe or URL. */
  source: string;
  /** Number of the multifd channel that the source is. */
  channel?: number;
  /** Byte offset from the start of the source, also when the stream begins at `,offset=N`. */
  offset: number;
  /**
   * What offset counts: `file`: bytes of the source itself; `decompressed`: of what came out of a decompressor;
   * `vm-state`: of the VM state of a qcow2 snapshot.
   */
  coordinate: 'file' | 'decompressed' | 'vm-state';
  /** Idstr of the section it is in. */
  section?: string;
  /** Idstr of the RAM block it is about. */
  block?: string;
  /** Page index within the block. */
  page?: number;
}

/** What the offsets of one source are counted in: the part that all its places have in common. */
export type PlaceOrigin = Pick<Place, 'source' | 'coordinate'>;

/** Every code, its usual severity and its meaning in a line. The codes are stable; the texts may improve. */
export const findingCodes = {
  'not-a-migration-stream': ['error', 'the magic bytes "QEVM" are not there'],
  'unsupported-version': ['error', 'a stream version other than 3'],
  truncated: ['error', 'the source ends inside a structure'],
  'bad-configuration': ['error', 'a configuration subsection that cannot be read'],
  'unknown-section-type': ['error', 'a byte that begins no known kind of section'],
  'bad-section': ['error', 'a section whose id is unknown, ended or taken, or a RAM section of another version'],
  'bad-footer': ['error', 'a section footer that is missing or names another section'],
  'bad-command': ['error', 'a migration command that is unknown or has the wrong length'],
  'bad-package': ['error', 'an embedded (packaged) stream that does not fit its stated length'],
  'bad-device-section': ['error', 'a device section whose end cannot be found'],
  'bad-iterable': ['error', 'a body of a known iterable section that breaks its format'],
  'bad-description': ['warning', 'a VM description that is not valid JSON, too deep, or has values that cannot be'],
  'bad-block-list': ['error', 'a RAM block list that contradicts itself'],
  'bad-ram-record': ['error', 'a RAM record with impossible flags'],
  'unknown-block': ['error', 'a page of a RAM block that was not listed'],
  'page-out-of-range': ['error', 'a page beyond the end of its RAM block'],
  'bad-zero-page': ['error', 'a zero page whose fill byte is not zero'],
  'bad-delta': ['error', 'an XBZRLE delta that does not decode'],
  'bad-channel': ['error', 'a multifd channel whose first bytes are not those of one, or that is of another set'],
  'bad-packet': ['error', 'a multifd packet that contradicts itself'],
  'sync-mismatch': ['error', "a multifd channel whose SYNC packets are not as many as the main stream's marks"],
  'bad-compressed-data': ['error', 'compressed pages that do not decompress to exactly their size'],
  'bad-mapped-ram-header': ['error', 'a mapped-ram header that QEMU or its layout forbids'],
  'bad-bitmap': ['error', 'a mapped-ram bitmap with bits beyond its block'],
  'untrusted-bitmap': ['error', 'mapped-ram bitmaps of a file whose RAM section never ended'],
  'limit-exceeded': ['error', 'a size beyond what this reader accepts'],
  'pages-lost': ['error', 'pages discarded at the switchover to postcopy that never came again'],
  'mismatched-source': ['error', 'a recovery stream or preempt channel that does not belong to the stream'],
  'bad-return-path': ['error', 'a return path that breaks its format, or contradicts the stream'],
  'changes-only': ['warning', 'a file of vmferry that holds only the pages that changed since another, its base'],
  'bad-changes': ['error', 'changes that are none, or that are damaged: with their base they are not what they were'],
  'wrong-base': ['error', 'a base that is not the one since which the changes were made'],
  unsupported: ['error', 'something valid that this version does not decode'],
  'order-violation': ['error', 'sections in an order that QEMU never writes'],
  'delta-without-base': ['warning', 'an XBZRLE delta for a page never sent before'],
  'description-mismatch': ['warning', 'a device whose size, version, name or content differs from the VM description'],
  'description-missing': ['info', 'no VM description: device boundaries were found without it'],
  'no-footers': ['info', 'a stream without section footers (machine types before 2.4)'],
  'guessed-boundary': ['warning', 'a device section whose end is a guess: neither footer nor description'],
  'no-ram-end': ['info', 'the RAM section has no end part (as in a background snapshot)'],
  'pages-absent': ['warning', 'pages that were never sent: their content reads as zero'],
  'zero-data-page': ['info', 'pages sent in full although all their bytes are zero'],
  'unknown-capability': ['warning', 'a capability in the configuration that is not known to change the format'],
  'unaligned-pages': ['info', 'mapped-ram pages not on a 1 MiB boundary, as QEMU would place them'],
  'block-ignored': ['info', 'a RAM block of shared memory that the migration left out (x-ignore-shared)'],
  'broken-off': ['info', 'a stream that breaks off after the switchover to postcopy, and is resumed by another'],
  'return-path-error': ['warning', 'a return path on which the destination reports that it failed'],
  'return-path-open': ['info', 'a return path that ends without SHUT'],
  'unknown-section': ['info', 'an iterable section of unknown format, measured by its footer'],
  'bad-libvirt-header': ['error', 'a libvirt save image whose header or XML contradicts itself'],
  'incomplete-save': ['error', 'a libvirt save image that was never finished'],
  'bad-compression': ['error', 'compressed data that are damaged or break off'],
  'bad-archive': ['error', 'a zip archive that contradicts itself, or a member that is not what was packed'],
  'bad-disk-image': ['error', 'a qcow2 image with metadata that the format forbids'],
  'unclean-image': ['warning', 'a qcow2 image that is marked as dirty or corrupt'],
  'ambiguous-snapshot': ['warning', "a snapshot's name that is another's id"],
  'no-vm-state': ['error', 'a qcow2 snapshot of the disk alone'],
  'bad-vmstate-dump': ['error', 'output of -dump-vmstate that is no JSON, or of another shape'],
  'trailing-data': ['warning', 'bytes after the end of the stream'],
  'trailing-zeros': ['info', 'zero bytes after the end of the stream, as on block devices'],
} as const satisfies Record<string, readonly [Severity, string]>;

/** The code of a finding: a key of {@link findingCodes}. */
export type FindingCode = keyof typeof findingCodes;

/** One thing a reader noticed. */
export interface Finding {
  severity: Severity;
  code: FindingCode;
  message: string;
  place: Place;
}

/** A finding with the severity that its code usually has. */
export function makeFinding(code: FindingCode, message: string, place: Place): Finding {
  return { severity: findingCodes[code][0], code, message, place };
}

const coordinateNames = { decompressed: 'decompressed', 'vm-state': 'of the VM state' } as const;

const hex = (offset: number) => `0x${offset.toString(16)}`;

/** A place in words: `guest.bin at 0x1f4 (500), section ram, block pc.ram, page 7`. */
export function formatPlace(place: Place): string {
  let text = `${place.source} at ${hex(place.offset)} (${place.offset}${
    place.coordinate === 'file' ? '' : `, ${coordinateNames[place.coordinate]}`
  })`;
  if (place.channel !== undefined) text += `, channel ${place.channel}`;
  if (place.section !== undefined) text += `, section ${place.section}`;
  if (place.block !== undefined) text += `, block ${place.block}`;
  if (place.page !== undefined) text += `, page ${place.page}`;
  return text;
}

/** The input is bad, or holds something this version cannot read. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError';
  readonly code: FindingCode;
  readonly place: Place;
  /** The message without the place. */
  readonly detail: string;

  constructor(code: FindingCode, detail: string, place: Place) {
    super(`${detail} [${code}] in ${formatPlace(place)}`);
    this.code = code;
    this.place = place;
    this.detail = detail;
  }

  /** The same fact as a finding. */
  toFinding(): Finding {
    return { severity: 'error', code: this.code, message: this.detail, place: this.place };
  }

  /** The error for a finding. */
  static from(finding: Finding): MigrationError {
    return new MigrationError(finding.code, finding.message, finding.place);
  }
}
