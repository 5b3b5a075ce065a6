/**
 * Where a file comes from: files that were picked or dropped, or a URL. Whoever reads it opens it anew, so that several can
 * at once, each with buffers of its own, and may stop when they like.
 */

import { BlobSource } from '../../io/blob-source.ts';
import type { ByteSource } from '../../io/byte-source.ts';
import { openHttp } from '../../io/http-source.ts';
import { watchSource } from '../../io/watched-source.ts';
import { splitUrl } from '../../read/location.ts';
import { type MigrationFile, openFile } from '../../read/open.ts';
import { listParts, mapParts, type PartLists } from '../../read/parts.ts';
import { arrangeParts, sortParts } from '../../read/sort-parts.ts';
import type { Place } from '../../vm/migration-error.ts';
import type { FileInput, PartNames } from '../protocol.ts';

/** While a file is open for one purpose. */
export interface Reading {
  signal: AbortSignal;
  /** Called after each read. */
  onRead?: (bytes: number) => void;
}

type OpenSource = (signal: AbortSignal) => ByteSource | Promise<ByteSource>;

export class Origin {
  readonly name: string;
  /** Of all sources, in bytes; undefined: the server does not say. */
  readonly size: number | undefined;
  readonly #main: OpenSource;
  readonly #parts: PartLists<File>;
  readonly #where: { snapshot?: string; offset?: number };

  private constructor(
    name: string,
    size: number | undefined,
    main: OpenSource,
    parts: PartLists<File>,
    where: { snapshot?: string; offset?: number },
  ) {
    this.name = name;
    this.size = size;
    this.#main = main;
    this.#parts = parts;
    this.#where = where;
  }

  /**
   * @throws UnclearPartsError, RangeError for files that may belong together in several ways, and in none; HttpError;
   *   TypeError for a URL that is none
   */
  static async find(input: FileInput, signal: AbortSignal): Promise<Origin> {
    const given = {
      ...(input.snapshot === undefined ? {} : { snapshot: input.snapshot }),
      ...(input.offset === undefined ? {} : { offset: input.offset }),
    };
    if ('files' in input) {
      const { files, roles } = input;
      const { main, parts } =
        roles === undefined ? await sortParts(files, (file) => new BlobSource(file)) : arrangeParts(files, roles);
      const size = [main, ...Object.values(parts).flat()].reduce((sum, file) => sum + file.size, 0);
      return new Origin(main.name, size, () => new BlobSource(main), parts, given);
    }
    const { url, snapshot, offset } = splitUrl(input.url);
    const where = {
      ...(snapshot === undefined ? {} : { snapshot }),
      ...(offset === undefined ? {} : { offset }),
      ...given,
    };
    const main: OpenSource = (ending) =>
      openHttp(url, { fetch: (request, init) => fetch(request, until(ending, init)) });
    const source = await main(signal);
    const { size } = source;
    await source.close();
    const name = decodeURIComponent(new URL(url).pathname.split('/').at(-1) ?? '') || source.name;
    return new Origin(name, size, main, listParts({}), where);
  }

  /** Names of the files that belong to the main one. */
  get partNames(): PartNames {
    const namesOf = (files: readonly File[]) => files.map(({ name }) => name);
    const { channels, resumeOf, preempt, returnPath } = this.#parts;
    return {
      channels: namesOf(channels),
      resumeOf: namesOf(resumeOf),
      preempt: namesOf(preempt),
      returnPath: namesOf(returnPath),
    };
  }

  /** Opens the file; closing it is the caller's. */
  async open({ signal, onRead }: Reading): Promise<MigrationFile> {
    const watch = { signal, ...(onRead === undefined ? {} : { onRead }) };
    const parts = await mapParts(this.#parts, (file) => watchSource(new BlobSource(file), watch));
    return openFile(watchSource(await this.#main(signal), watch), { ...this.#where, ...parts });
  }

  /** Opens what a place counts the bytes of. @throws RangeError for bytes that are nowhere to be read */
  async openBytes(
    { source, channel, coordinate = 'file' }: Partial<Pick<Place, 'source' | 'channel' | 'coordinate'>>,
    reading: Reading,
  ): Promise<ByteSource> {
    const file = Object.values(this.#parts)
      .flat()
      .find(({ name }) => name === source);
    if (channel !== undefined || file !== undefined) {
      if (file !== undefined && coordinate === 'file') return watchSource(new BlobSource(file), reading);
      throw new RangeError('expected a place in a file, got one in what came out of a decompressor');
    }
    if (coordinate === 'file') return watchSource(await this.#main(reading.signal), reading);
    return (await this.open(reading)).source;
  }
}

const until = (signal: AbortSignal, init: RequestInit | undefined): RequestInit => ({
  ...init,
  signal: init?.signal == null ? signal : AbortSignal.any([signal, init.signal]),
});
