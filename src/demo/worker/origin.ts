/**
 * Where an open file comes from: chosen or dropped files, members of a zip archive, or a URL. Every call opens the origin again,
 * so that calls run at the same time, each with its own buffers, and each can be cancelled.
 */

import { BlobSource } from '../../io/blob-source.ts';
import type { ByteSource } from '../../io/byte-source.ts';
import { openHttp } from '../../io/http-source.ts';
import { peek } from '../../io/peeked-source.ts';
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
  open: OpenSource;
}

type Where = Pick<OpenOptions, 'snapshot' | 'inside' | 'offset'>;

export class Origin {
  readonly name: string;
  /** Bytes of all sources. Undefined if the server does not report it. */
  readonly size: number | undefined;
  readonly #main: OpenSource;
  readonly #parts: PartLists<Input>;
  readonly #where: Where;
  /** Whether the checksums of stored members of an archive were compared. Once is enough. */
  #isChecked = false;

  private constructor(name: string, size: number | undefined, main: OpenSource, parts: PartLists<Input>, where: Where) {
    this.name = name;
    this.size = size;
    this.#main = main;
    this.#parts = parts;
    this.#where = where;
  }

  /**
   * @throws UnclearPartsError if the files could belong together in several ways, RangeError if they do not belong together,
   *   HttpError, and TypeError for an invalid URL
   */
  static async find(input: FileInput, signal: AbortSignal): Promise<Origin> {
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
          ? await sortParts(inputs, (each) => each.open({ signal }, false))
          : arrangeParts(inputs, roles);
      const size = [main, ...Object.values(parts).flat()].reduce((sum, each) => sum + each.size, 0);
      return new Origin(main.name, size, main.open, parts, given);
    }
    const { url, inside, offset } = splitUrl(input.url);
    const where = {
      ...(inside === undefined ? {} : { inside }),
      ...(offset === undefined ? {} : { offset }),
      ...given,
    };
    const main: OpenSource = async (reading) => {
      const whole = await openHttp(url, { fetch: (request, init) => fetch(request, until(reading.signal, init)) });
      return watchSource(whole, reading);
    };
    const source = await main({ signal }, false);
    const { size } = source;
    await source.close();
    const name = decodeURIComponent(new URL(url).pathname.split('/').at(-1) ?? '') || source.name;
    return new Origin(name, size, main, listParts({}), where);
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

/** The files. A single zip archive stands for its members. @throws MigrationError for a bad archive */
async function listInputs(files: readonly File[]): Promise<Input[]> {
  const [first, ...others] = files;
  if (first !== undefined && others.length === 0) {
    const source = new BlobSource(first);
    const { head } = await peek(source, 0, 4, () => false);
    if (isZip(head)) return listMembers(first, await readZip(source));
  }
  return files.map((file) => ({
    name: file.name,
    size: file.size,
    open: (reading) => watchSource(new BlobSource(file), reading),
  }));
}

function listMembers(file: File, archive: ZipArchive): Input[] {
  if (archive.members.length === 0) throw new RangeError(`expected a zip archive with files in it, got ${file.name}`);
  return archive.members.map((member) => ({
    name: `${file.name}#${member.name}`,
    size: member.size,
    open: (reading, check) =>
      openZipMember({ ...archive, source: watchSource(new BlobSource(file), reading) }, member, { check }),
  }));
}

const until = (signal: AbortSignal, init: RequestInit | undefined): RequestInit => ({
  ...init,
  signal: init?.signal == null ? signal : AbortSignal.any([signal, init.signal]),
});
