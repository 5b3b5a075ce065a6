/**
 * Writes zip archives with fflate, member by member, as bytes arrive. No member is kept in memory. Sizes follow the
 * data (data descriptors), so nothing is written twice.
 *
 * fflate does not write zip64, so archives over 4 GiB or 65,535 members are refused.
 */
import type { Zip, ZipInputFile } from 'fflate';
import { type ByteSink, type ByteSource, readFully } from './byte-source.ts';

/** How a member is written. */
export interface ZipMemberOptions {
  /** How hard to compress, 1 to 9; 0 stores the member, and readers can seek in it. Default 0. */
  level?: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;
  /** When the file was modified. Default: now. */
  modified?: Date;
}

/** The most bytes of an archive, and members. */
const maxBytes = 0xffffffff;
const maxMembers = 0xffff - 1;
/** Bytes of a directory entry besides the name. */
const entryBytes = 46;
const headBytes = 30 + 16;
const endBytes = 22;
const pieceBytes = 256 * 1024;

type Member = ZipInputFile & { push(chunk: Uint8Array, isLast?: boolean): void };

/** The length of an archive of stored files. */
export function zipLength(files: readonly { name: string; size: number }[]): number {
  const nameLength = (name: string) => new TextEncoder().encode(name).length;
  return files.reduce((sum, { name, size }) => sum + size + headBytes + entryBytes + 2 * nameLength(name), endBytes);
}

/** @throws RangeError for stored files that are too many, or too large, for an archive */
export function requireZippable(files: readonly { name: string; size: number }[]): void {
  const length = zipLength(files);
  if (length > maxBytes) throw tooLarge(maxBytes, length);
  if (files.length > maxMembers) throw new RangeError(`expected at most ${maxMembers} files, got ${files.length}`);
}

const tooLarge = (limit: number, length: number) =>
  new RangeError(`a zip archive written here has at most ${limit} bytes, and this one needs ${length}`);

/** Writes a zip archive, member by member. */
export class ZipWriter {
  readonly #output: ByteSink;
  readonly #limit: number;
  readonly #names = new Set<string>();
  /** Made for the first member, which loads fflate. */
  #zip: Zip | undefined;
  /** Output of fflate that was not written yet. */
  #made: Uint8Array[] = [];
  #failure: Error | undefined;
  #length = 0;
  /** Bytes that the directory and the end will take. */
  #pending = endBytes;

  /** `limit`: the most bytes that the archive may have, at most 4 GiB. */
  constructor(output: ByteSink, limit = maxBytes) {
    if (limit > maxBytes) throw new RangeError(`expected a limit of at most ${maxBytes} bytes, got ${limit}`);
    this.#output = output;
    this.#limit = limit;
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /**
   * Adds a file with the bytes of a source or of chunks.
   * @throws RangeError for a name that is taken or empty, and for what does not fit into an archive; it is of no use
   *   then
   */
  async add(
    name: string,
    content: ByteSource | AsyncIterable<Uint8Array>,
    { level = 0, modified }: ZipMemberOptions = {},
  ): Promise<void> {
    if (name === '' || this.#names.has(name)) throw new RangeError(`expected the name of a new file, got "${name}"`);
    if (this.#names.size === maxMembers) throw new RangeError(`expected at most ${maxMembers} files`);
    this.#names.add(name);
    const zip = await this.#open();
    const member = await makeMember(name, level);
    if (modified !== undefined) member.mtime = modified;
    zip.add(member);
    this.#pending += entryBytes + new TextEncoder().encode(name).length;
    let size = 0;
    for await (const chunk of 'read' in content ? readAll(content) : content) {
      size += chunk.length;
      // Deflated data is at most slightly longer. Its length is checked when it is known.
      if (size > maxBytes) throw tooLarge(this.#limit, size);
      member.push(chunk, false);
      await this.#flush();
    }
    member.push(new Uint8Array(0), true);
    await this.#flush();
  }

  /** Writes the directory, which completes the archive. */
  async end(): Promise<void> {
    const zip = await this.#open();
    this.#pending = 0;
    zip.end();
    await this.#flush();
  }

  async #open(): Promise<Zip> {
    const { Zip } = await import('./fflate-zip.ts');
    this.#zip ??= new Zip((error, bytes) => {
      if (error !== null) this.#failure ??= error;
      else this.#made.push(bytes);
    });
    return this.#zip;
  }

  async #flush(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const made = this.#made;
    this.#made = [];
    for (const bytes of made) {
      this.#length += bytes.length;
      const needed = this.#length + this.#pending;
      if (needed > this.#limit) throw tooLarge(this.#limit, needed);
      if (bytes.length > 0) await this.#output.write(bytes);
    }
  }
}

async function makeMember(name: string, level: number): Promise<Member> {
  if (level === 0) {
    const { ZipPassThrough } = await import('./fflate-zip.ts');
    return new ZipPassThrough(name);
  }
  const { ZipDeflate } = await import('./zip-deflate.ts');
  return new ZipDeflate(name, { level: level as 1 });
}

async function* readAll(source: ByteSource): AsyncGenerator<Uint8Array, void> {
  const piece = new Uint8Array(pieceBytes);
  for (let at = 0; ; ) {
    const part = source.size === undefined ? piece : piece.subarray(0, Math.min(piece.length, source.size - at));
    if (part.length === 0) return;
    if (source.size !== undefined) await readFully(source, part, at);
    const count = source.size === undefined ? await source.read(part, at) : part.length;
    if (count === 0) return;
    at += count;
    yield part.subarray(0, count);
  }
}
