/**
 * Where an open file comes from: chosen or dropped files, members of a zip archive, or a URL. Every call opens the origin again,
 * so that calls run at the same time, each with its own buffers, and each can be cancelled. Files are read anew then. A URL is
 * fetched once: what was fetched is kept in a scratch file.
 */

import { orAborted } from '../../io/abort.ts';
import { BlobSource } from '../../io/blob-source.ts';
import { announcements, type ByteSource } from '../../io/byte-source.ts';
import { openHttp } from '../../io/http-source.ts';
import { KeptSource } from '../../io/kept-source.ts';
import { peek } from '../../io/peeked-source.ts';
import type { ScratchPlace } from '../../io/scratch.ts';
import { watchSource } from '../../io/watched-source.ts';
import { isZip, openZipMember, readZip, type ZipArchive } from '../../io/zip.ts';
import { splitUrl } from '../../read/location.ts';
import { type MigrationFile, type OpenOptions, openFile } from '../../read/open.ts';
import { listParts, mapParts, type PartLists } from '../../read/parts.ts';
import { arrangeParts, sortParts } from '../../read/sort-parts.ts';
import type { Place } from '../../vm/migration-error.ts';
import type { FileInput, PartNames } from '../protocol.ts';

/** Options of opening the origin for one call. */
export interface Reading {
  signal: AbortSignal;
  /** Called after each read. */
  onRead?: (bytes: number) => void;
}

/** `check`: read stored members of an archive first, to compare their checksums. */
type OpenSource = (reading: Reading, check: boolean) => ByteSource | Promise<ByteSource>;

/** A chosen file, or a member of a chosen archive. */
interface Input {
  name: string;
  size: number;
  /** Opens it to look at its first bytes. The first call of `open` reads no byte again that was seen then. */
  look: OpenSource;
  open: OpenSource;
}

type Where = Pick<OpenOptions, 'snapshot' | 'inside' | 'offset'>;

export class Origin {
  readonly name: string;
  /** Bytes of all sources. Undefined if the server does not report it. */
  readonly size: number | undefined;
  /** Whether its bytes are fetched from a server. */
  readonly isRemote: boolean;
  readonly #main: OpenSource;
  readonly #parts: PartLists<Input>;
  readonly #where: Where;
  readonly #end: () => Promise<void>;
  /** Whether the checksums of stored members of an archive were compared. Once is enough. */
  #isChecked = false;

  private constructor(
    { name, size, open, end }: { name: string; size: number | undefined; open: OpenSource; end?: () => Promise<void> },
    parts: PartLists<Input>,
    where: Where,
  ) {
    this.name = name;
    this.size = size;
    this.isRemote = end !== undefined;
    this.#main = open;
    this.#end = end ?? (async () => {});
    this.#parts = parts;
    this.#where = where;
  }

  /**
   * @throws UnclearPartsError if the files could belong together in several ways, RangeError if they do not belong together,
   *   HttpError, and TypeError for an invalid URL
   */
  static async find(input: FileInput, signal: AbortSignal, scratch: ScratchPlace): Promise<Origin> {
    const given = {
      ...(input.snapshot === undefined ? {} : { snapshot: input.snapshot }),
      ...(input.offset === undefined ? {} : { offset: input.offset }),
    };
    if ('files' in input) {
      const { files, roles, order } = input;
      const found = await listInputs(files);
      const inputs = order === undefined ? found : order.map((index) => found[index] as Input);
      const { main, parts } =
        roles === undefined
          ? await sortParts(inputs, (each) => each.look({ signal }, false))
          : arrangeParts(inputs, roles);
      const size = [main, ...Object.values(parts).flat()].reduce((sum, each) => sum + each.size, 0);
      const open: OpenSource = (reading, check) => main.open(reading, check);
      return new Origin({ name: main.name, size, open }, parts, given);
    }
    const { url, inside, offset } = splitUrl(input.url);
    const where = {
      ...(inside === undefined ? {} : { inside }),
      ...(offset === undefined ? {} : { offset }),
      ...given,
    };
    const remote = await openRemote(url, signal, scratch);
    const name = decodeURIComponent(new URL(url).pathname.split('/').at(-1) ?? '') || remote.name;
    return new Origin({ ...remote, name }, listParts({}), where);
  }

  /** Ends all reading, and removes what was kept. */
  close(): Promise<void> {
    return this.#end();
  }

  /** Names of the other files of the migration. */
  get partNames(): PartNames {
    const namesOf = (inputs: readonly Input[]) => inputs.map(({ name }) => name);
    const { channels, resumeOf, preempt, returnPath } = this.#parts;
    return {
      channels: namesOf(channels),
      resumeOf: namesOf(resumeOf),
      preempt: namesOf(preempt),
      returnPath: namesOf(returnPath),
    };
  }

  /** Opens the file. The caller closes it. */
  async open(reading: Reading): Promise<MigrationFile> {
    const check = !this.#isChecked;
    const parts = await mapParts(this.#parts, (input) => input.open(reading, check));
    const main = await this.#main(reading, check);
    const file = await openFile(main, { ...this.#where, ...parts, checkMember: check });
    this.#isChecked = true;
    return file;
  }

  /** Opens the source that a place belongs to. @throws RangeError if the bytes there exist only after decompression */
  async openBytes(
    { source, channel, coordinate = 'file' }: Partial<Pick<Place, 'source' | 'channel' | 'coordinate'>>,
    reading: Reading,
  ): Promise<ByteSource> {
    const part = Object.values(this.#parts)
      .flat()
      .find(({ name }) => name === source);
    if (channel !== undefined || part !== undefined) {
      if (part !== undefined && coordinate === 'file') return part.open(reading, false);
      throw new RangeError('expected a place in a file, got a place in decompressed data');
    }
    if (coordinate === 'file') return this.#main(reading, false);
    return (await this.open(reading)).source;
  }
}

/** Memory for the buffers of all files that are read at the same time. */
const bufferMemory = 64 << 20;
const minBuffer = 128 << 10;
const maxBuffer = 8 << 20;

/** The files. A single zip archive stands for its members. @throws MigrationError for a bad archive */
async function listInputs(files: readonly File[]): Promise<Input[]> {
  const bufferBytes = Math.min(maxBuffer, Math.max(minBuffer, Math.floor(bufferMemory / files.length / 2)));
  const inputs = files.map((file) => new ChosenFile(file, bufferBytes));
  const [first, ...others] = inputs;
  if (first !== undefined && others.length === 0) {
    const source = first.look();
    const { head } = await peek(source, 0, 4, () => false);
    if (isZip(head)) return listMembers(first, await readZip(source));
  }
  return inputs;
}

/** A file on the user's disk. */
class ChosenFile implements Input {
  readonly name: string;
  readonly size: number;
  readonly #file: File;
  readonly #bufferBytes: number;
  /** The source that was looked at, with the bytes that it has read. */
  #looked: BlobSource | undefined;

  constructor(file: File, bufferBytes: number) {
    this.name = file.name;
    this.size = file.size;
    this.#file = file;
    this.#bufferBytes = bufferBytes;
  }

  look(): ByteSource {
    this.#looked ??= this.#makeSource();
    return watchSource(this.#looked, {});
  }

  open(reading: Reading): ByteSource {
    const source = this.#looked ?? this.#makeSource();
    this.#looked = undefined;
    return watchAndClose(source, reading);
  }

  #makeSource(): BlobSource {
    return new BlobSource(this.#file, this.name, { bufferBytes: this.#bufferBytes });
  }
}

/** Watches a source, and closes it in the end. */
const watchAndClose = (source: ByteSource, reading: Reading): ByteSource => ({
  ...watchSource(source, reading),
  close: () => source.close(),
});

function listMembers(file: ChosenFile, archive: ZipArchive): Input[] {
  if (archive.members.length === 0) throw new RangeError(`expected a zip archive with files in it, got ${file.name}`);
  return archive.members.map((member) => {
    const open: OpenSource = (reading, check) =>
      openZipMember({ ...archive, source: file.open(reading) }, member, { check });
    return { name: `${file.name}#${member.name}`, size: member.size, look: open, open };
  });
}

/** Bytes of a URL that are kept if scratch files are in memory. */
const keptInMemory = 32 << 20;

/** Opens a URL. Its bytes are fetched at most once if the server sends ranges and there is a disk to keep them. */
async function openRemote(url: string, signal: AbortSignal, scratch: ScratchPlace) {
  const closing = new AbortController();
  const openSource = (until: AbortSignal) =>
    openHttp(url, { fetch: (request, init) => fetch(request, ended(until, init)) });
  const first = await orAborted(openSource(AbortSignal.any([signal, closing.signal])), signal);
  const { name, size } = first;
  if (size === undefined) {
    // It can be read only once. The first reading takes the response that is there already.
    let unused: ByteSource | undefined = first;
    const open: OpenSource = async (reading) => {
      const source = unused ?? (await openSource(AbortSignal.any([reading.signal, closing.signal])));
      unused = undefined;
      return watchAndClose(source, reading);
    };
    return { name, size, open, end: async () => closing.abort() };
  }
  const limit = scratch.kind === 'memory' ? { maxBytes: keptInMemory } : {};
  const kept = new KeptSource(first, () => scratch.makeFile(), limit);
  const open: OpenSource = (reading) => {
    const { signal } = reading;
    // A cancelled call waits no longer. The bytes that it asked for are kept when they arrive.
    const read = (target: Uint8Array, position: number) => orAborted(kept.read(target, position), signal);
    return watchSource({ name, size, read, ...announcements(kept), close: async () => {} }, reading);
  };
  const end = async () => {
    closing.abort();
    await kept.close();
  };
  return { name, size, open, end };
}

const ended = (signal: AbortSignal, init: RequestInit | undefined): RequestInit => ({
  ...init,
  signal: init?.signal == null ? signal : AbortSignal.any([signal, init.signal]),
});
