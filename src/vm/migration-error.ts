/**
 * What can be wrong with a migration file, and where: the stable codes, places, findings and the error class.
 *
 * A finding is a problem that a reader could read past. A {@link MigrationError} is a problem that made the rest
 * unreadable, or that the caller's work cannot tolerate. Misuse of the API is a TypeError or RangeError instead.
 */

/** How bad a finding is. `error`: QEMU would refuse the file or its content cannot be trusted; `warning`: unusual. */
export type Severity = 'error' | 'warning' | 'info';

/** Where something is, as precisely as it is known. */
export interface Place {
  /** The file, pipe or URL. */
  source: string;
  /** Number of the multifd channel that this source is. */
  channel?: number;
  /** Byte offset from the start of the source, also when the stream begins at `,offset=N`. */
  offset: number;
  /**
   * What offset counts: `file`: bytes of the source itself; `decompressed`: bytes of a decompressor's output;
   * `vm-state`: bytes of the VM state of a qcow2 snapshot.
   */
  coordinate: 'file' | 'decompressed' | 'vm-state';
  /** Idstr of the section that contains the place. */
  section?: string;
  /** Idstr of the RAM block concerned. */
  block?: string;
  /** Page index within the block. */
  page?: number;
}

/** What the offsets of one source count: the part that all places in that source have in common. */
export type PlaceOrigin = Pick<Place, 'source' | 'coordinate'>;

/** Every code, with its usual severity and its meaning in a line. The codes are stable; the texts may improve. */
export const findingCodes = {
  'not-a-migration-stream': ['error', 'the magic bytes "QEVM" are missing, or the file is of another kind'],
  'unsupported-version': ['error', 'a stream version other than 3'],
  truncated: ['error', 'the source ends inside a structure'],
  'bad-configuration': ['error', 'a configuration subsection that cannot be read'],
  'unknown-section-type': ['error', 'a byte that begins no known kind of section'],
  'bad-section': ['error', 'a section whose id is unknown, ended or taken, or a RAM section of another version'],
  'bad-footer': ['error', 'a section footer that is missing or names another section'],
  'bad-command': ['error', 'a migration command that is unknown or has the wrong length'],
  'bad-package': ['error', 'an embedded (packaged) stream that does not fit its stated length'],
  'bad-device-section': ['error', 'a device section whose end cannot be found'],
  'bad-iterable': ['error', 'a known iterable section whose body violates its format'],
  'bad-description': [
    'warning',
    'a VM description that is not valid JSON, is nested too deeply, or has impossible values',
  ],
  'bad-block-list': ['error', 'a RAM block list that contradicts itself'],
  'bad-ram-record': ['error', 'a RAM record with impossible flags'],
  'unknown-block': ['error', 'a page of a RAM block that was not listed'],
  'page-out-of-range': ['error', 'a page beyond the end of its RAM block'],
  'bad-zero-page': ['error', 'a zero page whose fill byte is not zero'],
  'bad-delta': ['error', 'an XBZRLE delta that does not decode'],
  'bad-channel': ['error', 'a multifd channel that starts with the wrong bytes or belongs to another set'],
  'bad-packet': ['error', 'a multifd packet that contradicts itself'],
  'sync-mismatch': ['error', 'a multifd channel that goes on after the last mark of the main stream'],
  'sync-missing': ['error', 'a multifd channel that ends before the SYNC of a mark in the main stream'],
  'missing-channels': ['error', 'a multifd migration without all of its channels, which contain its pages'],
  'bad-compressed-data': ['error', 'compressed pages that do not decompress to exactly the page size'],
  'bad-mapped-ram-header': ['error', 'a mapped-ram header that QEMU or its layout forbids'],
  'bad-bitmap': ['error', 'a mapped-ram bitmap with bits beyond its block'],
  'untrusted-bitmap': ['error', 'mapped-ram bitmaps of a file whose RAM section never ended'],
  'limit-exceeded': ['error', 'a size beyond what this reader accepts'],
  'pages-lost': ['error', 'pages that were discarded at the switchover to postcopy and never sent again'],
  'mismatched-source': ['error', 'a recovery stream or preempt channel that does not belong to the stream'],
  'bad-return-path': ['error', 'a return path that violates its format, or contradicts the stream'],
  'changes-only': ['warning', 'a vmferry file that holds only the pages that changed since its base'],
  'bad-changes': ['error', 'a file that holds no changes, or whose changes do not produce the stated content'],
  'wrong-base': ['error', 'a base other than the one that the changes were made against'],
  unsupported: ['error', 'valid input that this version does not decode'],
  'order-violation': ['error', 'sections in an order that QEMU never writes'],
  'delta-without-base': ['warning', 'an XBZRLE delta for a page never sent before'],
  'description-mismatch': ['warning', 'a device whose size, version, name or content differs from the VM description'],
  'description-missing': ['info', 'no VM description: device boundaries come from other evidence'],
  'no-footers': ['info', 'a stream without section footers (machine types before 2.4)'],
  'guessed-boundary': ['warning', 'a device section whose end is a guess, since it has neither footer nor description'],
  'no-ram-end': ['info', 'the RAM section has no end part (as in a background snapshot)'],
  'pages-absent': ['warning', 'pages that were never sent: their content reads as zero'],
  'marked-incomplete': ['warning', 'a file that vmferry made from a partial one, and marked as incomplete'],
  'pages-unread': ['warning', 'pages that are compressed in a way that vmferry does not decode'],
  'zero-data-page': ['info', 'all-zero pages that were sent in full'],
  'unknown-capability': ['warning', 'a capability in the configuration that is not known to change the format'],
  'unaligned-pages': ['info', 'mapped-ram pages that are not on a 1 MiB boundary, where QEMU would place them'],
  'block-ignored': ['warning', 'a RAM block of shared memory that the migration left out (x-ignore-shared)'],
  'broken-off': ['info', 'a stream that breaks off after the switchover to postcopy and is resumed by another stream'],
  'return-path-error': ['warning', 'a return path on which the destination reports that it failed'],
  'return-path-open': ['info', 'a return path that ends without SHUT'],
  'unknown-section': ['info', 'an iterable section of unknown format, measured by its footer'],
  'bad-libvirt-header': ['error', 'a libvirt save image whose header or XML contradicts itself'],
  'incomplete-save': ['error', 'a libvirt save image that was never finished'],
  'bad-compression': ['error', 'compressed data that is damaged or cut off'],
  'bad-archive': ['error', 'a zip archive that contradicts itself, or a member with the wrong length or CRC-32'],
  'bad-disk-image': ['error', 'a qcow2 image with metadata that the format forbids'],
  'unclean-image': ['warning', 'a qcow2 image that is marked as dirty or corrupt'],
  'ambiguous-snapshot': ['warning', 'a snapshot name that is also the id of another snapshot'],
  'no-vm-state': ['error', 'a qcow2 snapshot that contains only the disk'],
  'bad-vmstate-dump': ['error', '-dump-vmstate output that is not JSON, or has an unexpected shape'],
  'trailing-data': ['warning', 'bytes after the end of the stream'],
  'trailing-zeros': ['info', 'zero bytes after the end of the stream, as on block devices'],
} as const satisfies Record<string, readonly [Severity, string]>;

/** The code of a finding: a key of {@link findingCodes}. */
export type FindingCode = keyof typeof findingCodes;

/**
 * The codes that are evidence of missing memory: what is there is sound, but part of it is not in the input. Pages that
 * were never sent prove nothing, because a balloon's free-page hints and unplugged virtio-mem leave pages out.
 */
export const incompleteCodes: ReadonlySet<FindingCode> = new Set([
  'truncated',
  'missing-channels',
  'sync-missing',
  'changes-only',
  'block-ignored',
  'pages-lost',
  'pages-unread',
  'untrusted-bitmap',
  'incomplete-save',
  'marked-incomplete',
]);

/**
 * What findings say about a file as a whole. `ok`: it can be loaded, and has all memory. `incomplete`: it is sound, but
 * memory is missing. `bad`: it contradicts its format.
 */
export type Verdict = 'ok' | 'incomplete' | 'bad';

/** The verdict on a file with these findings. */
export function verdictOf(findings: Iterable<Pick<Finding, 'severity' | 'code'>>): Verdict {
  let verdict: Verdict = 'ok';
  for (const { severity, code } of findings) {
    if (incompleteCodes.has(code)) verdict = 'incomplete';
    else if (severity === 'error') return 'bad';
  }
  return verdict;
}

/**
 * Makes a code more specific. `not-a-migration-stream`: what the bytes are instead. `another-kind`: a file of another
 * kind, which the message names.
 */
export type FindingReason = 'multifd-channel' | 'recovery-stream' | 'another-kind';

/** A problem or fact that a reader noticed. */
export interface Finding {
  severity: Severity;
  code: FindingCode;
  message: string;
  place: Place;
  /** Makes the code more specific, if known. */
  reason?: FindingReason;
}

/** Makes a finding with the usual severity of its code. */
export function makeFinding(code: FindingCode, message: string, place: Place): Finding {
  return { severity: findingCodes[code][0], code, message, place };
}

const coordinateNames = { decompressed: 'decompressed', 'vm-state': 'of the VM state' } as const;

const hex = (offset: number) => `0x${offset.toString(16)}`;

/** Formats a place as text: `guest.bin at 0x1f4 (500), section ram, block pc.ram, page 7`. */
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

/** The input is bad, or contains something that this version cannot read. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError';
  readonly code: FindingCode;
  readonly place: Place;
  /** The message without the place. */
  readonly detail: string;
  readonly reason?: FindingReason;

  constructor(code: FindingCode, detail: string, place: Place, reason?: FindingReason) {
    super(`${detail} [${code}] in ${formatPlace(place)}`);
    if (reason !== undefined) this.reason = reason;
    this.code = code;
    this.place = place;
    this.detail = detail;
  }

  /** Returns the same fact as a finding. */
  toFinding(): Finding {
    const finding = { severity: 'error', code: this.code, message: this.detail, place: this.place } as const;
    return this.reason === undefined ? finding : { ...finding, reason: this.reason };
  }

  /** Makes the error for a finding. */
  static from(finding: Finding): MigrationError {
    return new MigrationError(finding.code, finding.message, finding.place, finding.reason);
  }
}
