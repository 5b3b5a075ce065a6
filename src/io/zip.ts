/**
 * Reads zip archives by random access: the list of members (the central directory), and each member as a source.
 *
 *     local header   PK 03 04 | fields, name, extra | data | [data descriptor]      one for each member
 *     directory      PK 01 02 | fields, name, extra, comment                        one for each member
 *     zip64 end      PK 06 06 | …    zip64 locator   PK 06 07 | …                    if 32 or 16 bits are too few
 *     end            PK 05 06 | … comment
 *
 * Sizes come from the directory alone, so data descriptors are not needed. Stored members are read in place. Deflated
 * members are read forward, and the platform inflates them (docs/choices.md explains why fflate does not). Content is
 * checked by its length and CRC-32. Unsupported: encrypted members, other methods, archives in several volumes, and
 * archives with bytes before them.
 */
import { asyncDispose } from '../vm/auto-closed.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { announcements, type ByteSource, type OpenedSource, placeIn, readFully } from './byte-source.ts';
import { inflateStream } from './compression.ts';
import { Crc32 } from './crc32.ts';
import { StreamSource } from './stream-source.ts';

/** A file in an archive. Sizes and offsets are in bytes. */
export interface ZipMember {
  readonly name: string;
  /** `unknown`: a method that is not supported. */
  readonly method: 'stored' | 'deflated' | 'unknown';
  readonly isEncrypted: boolean;
  readonly size: number;
  readonly compressedSize: number;
  readonly crc32: number;
  /** Offset of its local header. */
  readonly offset: number;
  /** Offset of the next structure in the archive. The data ends before it. */
  readonly limit: number;
}

/** What the directory of a zip archive lists. */
export interface ZipArchive {
  readonly source: ByteSource;
  /** The files, in the order of the directory. */
  readonly members: readonly ZipMember[];
}

const signatures = { local: 0x504b0304, entry: 0x504b0102, end: 0x504b0506, end64: 0x504b0606, locator: 0x504b0607 };
const localLength = 30;
const entryLength = 46;
const endLength = 22;
const end64Length = 56;
const locatorLength = 20;
const maxComment = 0xffff;
/** The largest directory that is read: a quarter of a million members with names of usual length. */
const maxDirectory = 16 << 20;
/** Stands for a value that is in a zip64 field. */
const none32 = 0xffffffff;
/** Bytes read at a time. */
const pieceBytes = 256 * 1024;
/** Bytes inflated at a time. The output is at most a thousand times as long. */
const inflatedBytes = 16 * 1024;

/** Whether a file begins like an archive. An empty archive is only an end. */
export function isZip(head: Uint8Array): boolean {
  return head.length >= 4 && [signatures.local, signatures.end].includes(viewOf(head).getUint32(0));
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** What the end of the archive says about the directory. */
interface Directory {
  offset: number;
  length: number;
  count: number;
  /** Offset of the first of the end's structures. */
  end: number;
}

/**
 * Reads the list of members.
 * @throws MigrationError `bad-archive` for an archive that contradicts itself, `limit-exceeded`, `unsupported`
 */
export async function readZip(source: ByteSource): Promise<ZipArchive> {
  const directory = await findDirectory(source);
  const bad = (message: string, offset: number) => new MigrationError('bad-archive', message, placeIn(source, offset));
  const { offset, length, count, end } = directory;
  if (length > maxDirectory) {
    const message = `expected at most ${maxDirectory} bytes of zip directory, got ${length}`;
    throw new MigrationError('limit-exceeded', message, placeIn(source, offset));
  }
  if (offset + length !== end) {
    throw bad(`expected the zip directory to end at ${end}, got ${offset} and ${length} bytes`, offset);
  }
  const bytes = new Uint8Array(length);
  await readFully(source, bytes, offset);
  const entries: Omit<ZipMember, 'limit'>[] = [];
  let at = 0;
  while (at < length) {
    const { member, next } = readEntry(bytes, at, (message) => bad(message, offset + at));
    entries.push(member);
    at = next;
  }
  if (entries.length !== count)
    throw bad(`expected ${count} members in the zip directory, got ${entries.length}`, offset);
  return { source, members: placeMembers(entries, offset, bad) };
}

type Refuse = (message: string, offset: number) => MigrationError;

/** Checks that no two members share bytes, and leaves out folders. */
function placeMembers(entries: readonly Omit<ZipMember, 'limit'>[], end: number, bad: Refuse): ZipMember[] {
  const inOrder = [...entries].sort((a, b) => a.offset - b.offset);
  const limits = new Map(inOrder.map((member, i) => [member, inOrder[i + 1]?.offset ?? end]));
  const members: ZipMember[] = [];
  const names = new Set<string>();
  for (const member of entries) {
    const limit = limits.get(member) as number;
    if (member.offset + localLength + member.compressedSize > limit) {
      throw bad(`member "${member.name}" overlaps what follows it`, member.offset);
    }
    if (member.name.endsWith('/')) continue;
    if (names.has(member.name)) throw bad(`expected one member "${member.name}", got two`, member.offset);
    names.add(member.name);
    members.push({ ...member, limit });
  }
  return members;
}

/** Finds the end of the archive. The directory is before it. */
async function findDirectory(source: ByteSource): Promise<Directory> {
  const { size } = source;
  const refuse = (code: 'bad-archive' | 'unsupported', message: string, at: number) =>
    new MigrationError(code, message, placeIn(source, at));
  if (size === undefined) throw refuse('unsupported', 'a zip archive can be read only with random access', 0);
  const tail = new Uint8Array(Math.min(size, endLength + maxComment + locatorLength));
  const start = size - tail.length;
  await readFully(source, tail, start);
  const view = viewOf(tail);
  let at = tail.length - endLength;
  const isEnd = () =>
    view.getUint32(at) === signatures.end && at + endLength + view.getUint16(at + 20, true) === tail.length;
  while (at >= 0 && !isEnd()) at--;
  if (at < 0)
    throw refuse(
      'bad-archive',
      'the end of the zip archive was not found: the archive is cut off, or something follows it',
      size,
    );
  if (at < locatorLength || view.getUint32(at - locatorLength) !== signatures.locator) {
    const u16 = (offset: number) => view.getUint16(at + offset, true);
    if (u16(4) !== 0 || u16(6) !== 0 || u16(8) !== u16(10)) {
      throw refuse('unsupported', 'the zip archive is split into several volumes', start + at);
    }
    const [length, offset] = [view.getUint32(at + 12, true), view.getUint32(at + 16, true)];
    return { offset, length, count: u16(10), end: start + at };
  }
  const end = number64(view, at - locatorLength + 8);
  if (end + end64Length > start + at - locatorLength) {
    throw refuse('bad-archive', `expected the zip64 end before the locator, got ${end}`, start + at - locatorLength);
  }
  const end64 = new Uint8Array(end64Length);
  await readFully(source, end64, end);
  const view64 = viewOf(end64);
  if (view64.getUint32(0) !== signatures.end64) throw refuse('bad-archive', 'expected the zip64 end', end);
  if (view64.getUint32(16, true) !== 0 || view64.getUint32(20, true) !== 0) {
    throw refuse('unsupported', 'the zip archive is split into several volumes', end);
  }
  return { offset: number64(view64, 48), length: number64(view64, 40), count: number64(view64, 32), end };
}

/** A 64-bit number. A value beyond 2^53 loses precision, but still exceeds the size of any file. */
const number64 = (view: DataView, at: number) => Number(view.getBigUint64(at, true));

function readEntry(
  bytes: Uint8Array,
  at: number,
  bad: (message: string) => MigrationError,
): { member: Omit<ZipMember, 'limit'>; next: number } {
  const view = viewOf(bytes);
  if (at + entryLength > bytes.length || view.getUint32(at) !== signatures.entry) {
    throw bad('expected an entry of the zip directory');
  }
  const u16 = (offset: number) => view.getUint16(at + offset, true);
  const u32 = (offset: number) => view.getUint32(at + offset, true);
  const extraAt = at + entryLength + u16(28);
  const commentAt = extraAt + u16(30);
  const next = commentAt + u16(32);
  if (next > bytes.length) throw bad('an entry of the zip directory is cut off');
  const name = decodeName(bytes.subarray(at + entryLength, extraAt), (u16(8) & 0x800) !== 0);
  const short = { size: u32(24), compressedSize: u32(20), offset: u32(42) };
  const sizes = readZip64(view, extraAt, commentAt, short, bad);
  const code = u16(10);
  const method = code === 0 ? 'stored' : code === 8 ? 'deflated' : 'unknown';
  if (method === 'stored' && (u16(8) & 1) === 0 && sizes.size !== sizes.compressedSize) {
    throw bad(`expected ${sizes.size} bytes of the stored member "${name}", got ${sizes.compressedSize}`);
  }
  return { member: { name, method, isEncrypted: (u16(8) & 1) !== 0, ...sizes, crc32: u32(16) }, next };
}

type Sizes = Pick<ZipMember, 'size' | 'compressedSize' | 'offset'>;

/** The sizes. Those that exceed 32 bits are in an extra field, one after the other. */
function readZip64(
  view: DataView,
  from: number,
  to: number,
  short: Sizes,
  bad: (message: string) => MigrationError,
): Sizes {
  const missing = (['size', 'compressedSize', 'offset'] as const).filter((key) => short[key] === none32);
  if (missing.length === 0) return short;
  for (let at = from; at + 4 <= to; at += 4 + view.getUint16(at + 2, true)) {
    if (view.getUint16(at, true) !== 1) continue;
    const end = at + 4 + view.getUint16(at + 2, true);
    if (end > to || at + 4 + 8 * missing.length > end) break;
    return { ...short, ...Object.fromEntries(missing.map((key, i) => [key, number64(view, at + 4 + 8 * i)])) };
  }
  throw bad('expected zip64 sizes in an entry of the zip directory');
}

/** Names without the UTF-8 flag may have any encoding; most are ASCII. */
function decodeName(bytes: Uint8Array, isUtf8: boolean): string {
  try {
    return new TextDecoder('utf-8', { fatal: !isUtf8 }).decode(bytes);
  } catch {
    return new TextDecoder('latin1').decode(bytes);
  }
}

/** How a member of a zip archive is opened. */
export interface MemberOptions {
  /**
   * Whether a stored member is read completely when it is opened, to check its CRC-32. Default true. On a server it is
   * not read twice, but checked if it is read from its first byte to its last. Deflated members are checked while they
   * are read: the last bytes are returned only if everything is correct.
   */
  check?: boolean;
}

/**
 * Opens a member. A stored member can seek. A deflated member is read forward. Closing the result leaves the archive
 * open.
 * @throws MigrationError `bad-archive` for damaged content, here or from `read`; `unsupported`
 */
export async function openZipMember(
  { source }: ZipArchive,
  member: ZipMember,
  { check = true }: MemberOptions = {},
): Promise<OpenedSource> {
  const refuse = (what: string) => new MigrationError('unsupported', what, placeIn(source, member.offset));
  if (member.isEncrypted) throw refuse(`member "${member.name}" is encrypted`);
  if (member.method === 'unknown') throw refuse(`member "${member.name}" is compressed by a method other than deflate`);
  const start = await findData(source, member);
  const name = `${source.name}#${member.name}`;
  if (member.method === 'deflated') return new InflatedMember(source, member, start, name);
  const stored: OpenedSource = {
    name,
    ...(source.coordinate === undefined ? {} : { coordinate: source.coordinate }),
    size: member.size,
    read(target, position) {
      const length = Math.min(target.length, member.size - position);
      return length <= 0 ? 0 : source.read(target.subarray(0, length), start + position);
    },
    ...announcements(source, start, member.size),
    close: async () => {},
    [asyncDispose]: async () => {},
  };
  if (check && source.willRead !== undefined) return checkedInOrder(stored, new ContentCheck(source, member));
  if (check) {
    const checks = new ContentCheck(source, member);
    const piece = new Uint8Array(Math.min(pieceBytes, member.size));
    for (let at = 0; at < member.size; ) {
      const part = piece.subarray(0, Math.min(piece.length, member.size - at));
      await readFully(stored, part, at);
      checks.take(part);
      at += part.length;
    }
    checks.end();
  }
  return stored;
}

/**
 * A source whose content is checked if it is read from its first byte to its last. Other reads in between do no harm.
 * The read of the last bytes throws what `checks` finds.
 */
function checkedInOrder(stored: OpenedSource, checks: ContentCheck): OpenedSource {
  let checked = 0;
  return {
    ...stored,
    async read(target, position) {
      const count = await stored.read(target, position);
      if (position > checked || position + count <= checked) return count;
      checks.take(target.subarray(checked - position, count));
      checked = position + count;
      if (checked === stored.size) checks.end();
      return count;
    },
  };
}

/** Finds where a member's data begins. */
async function findData(source: ByteSource, member: ZipMember): Promise<number> {
  const { offset, limit, compressedSize, name } = member;
  const bad = (message: string) => new MigrationError('bad-archive', message, placeIn(source, offset));
  const head = new Uint8Array(localLength);
  await readFully(source, head, offset);
  const view = viewOf(head);
  const code = view.getUint16(8, true);
  if (view.getUint32(0) !== signatures.local) throw bad(`expected the local header of member "${name}"`);
  if (code !== (member.method === 'stored' ? 0 : 8)) {
    throw bad(`expected member "${name}" to be ${member.method}, its local header has method ${code}`);
  }
  const start = offset + localLength + view.getUint16(26, true) + view.getUint16(28, true);
  if (start + compressedSize > limit) throw bad(`member "${name}" overlaps what follows it`);
  return start;
}

/** Checks that content is what was packed. */
class ContentCheck {
  readonly #source: ByteSource;
  readonly #member: ZipMember;
  readonly #crc = new Crc32();
  #length = 0;

  constructor(source: ByteSource, member: ZipMember) {
    this.#source = source;
    this.#member = member;
  }

  take(bytes: Uint8Array): void {
    this.#crc.update(bytes);
    this.#length += bytes.length;
    if (this.#length > this.#member.size) throw this.#bad(`more than ${this.#member.size} bytes`);
  }

  /** @throws MigrationError if bytes are missing or differ */
  end(): void {
    const { size, crc32 } = this.#member;
    if (this.#length !== size) throw this.#bad(`${this.#length} of ${size} bytes`);
    const { value } = this.#crc;
    if (value !== crc32) throw this.#bad(`content with CRC-32 ${hex(value)} instead of ${hex(crc32)}`);
  }

  #bad(what: string): MigrationError {
    const { name, offset } = this.#member;
    return new MigrationError('bad-archive', `member "${name}" has ${what}`, placeIn(this.#source, offset));
  }
}

const hex = (value: number) => `0x${value.toString(16).padStart(8, '0')}`;

/** A deflated member, read forward. */
class InflatedMember extends StreamSource {
  readonly coordinate = 'decompressed' as const;

  constructor(source: ByteSource, member: ZipMember, start: number, name: string) {
    const ending = new AbortController();
    super(inflateMember(source, member, start, ending.signal), name, () => ending.abort());
  }
}

async function* inflateMember(
  source: ByteSource,
  member: ZipMember,
  start: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  const check = new ContentCheck(source, member);
  let failure: { error: unknown } | undefined;
  async function* packed(): AsyncGenerator<Uint8Array, void> {
    try {
      source.willRead?.(start, start + member.compressedSize);
      for (let at = 0; at < member.compressedSize && !signal.aborted; ) {
        const piece = new Uint8Array(Math.min(inflatedBytes, member.compressedSize - at));
        await readFully(source, piece, start + at);
        at += piece.length;
        yield piece;
      }
    } catch (error) {
      failure = { error };
      throw error;
    }
  }
  // The last chunk is held back until everything is checked.
  let last: Uint8Array | undefined;
  try {
    for await (const chunk of inflateStream(packed(), signal)) {
      check.take(chunk);
      if (last !== undefined) yield last;
      last = chunk;
    }
  } catch (error) {
    if (failure !== undefined) throw failure.error;
    if (error instanceof MigrationError) throw error;
    const message = `expected deflated data in member "${member.name}": ${error instanceof Error ? error.message : String(error)}`;
    throw new MigrationError('bad-archive', message, placeIn(source, member.offset));
  }
  if (signal.aborted) return;
  check.end();
  if (last !== undefined) yield last;
}
