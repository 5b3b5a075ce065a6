/** Answers the calls of the page. It keeps the open files by their numbers. */

import { deviceToJson } from '../../devices/device-json.ts';
import { MemoryScratch, type ScratchPlace } from '../../io/scratch.ts';
import { loadKernel } from '../../kernel/load-kernel.ts';
import { StreamIndex } from '../../store/stream-index.ts';
import { diffVms } from '../../tasks/diff/diff.ts';
import { hexPattern, type SearchPattern, textPattern } from '../../tasks/search/pattern.ts';
import { Searcher } from '../../tasks/search/search.ts';
import { pageCount } from '../../vm/ram-block.ts';
import type { RamBytes, SearchMatch, SearchQuery, SearchResult } from '../protocol.ts';
import type { Handlers } from '../rpc.ts';
import { type CallContext, Meter, SharedWork, type WorkContext } from './calls.ts';
import { Outputs } from './outputs.ts';
import type { PageMeasurer } from './page-measurer.ts';
import { ViewedFile } from './viewed-file.ts';

/** Limits of one call, in bytes: of RAM, and of the file itself. */
const maxRead = 16 << 20;
const maxBytes = 1 << 20;

const suffixes = { stream: 'migration', 'mapped-ram': 'mapped-ram', multifd: 'multifd.zip' };

export class Engine {
  readonly #scratch: ScratchPlace;
  readonly #measurer: PageMeasurer;
  readonly #outputs: Outputs;
  readonly #files = new Map<number, ViewedFile>();
  /** Files that are being read, with their RAM blocks known. */
  readonly #opening = new Map<number, ViewedFile>();
  /** Running and finished comparisons and measurements, by their files and blocks. */
  readonly #works = new Map<string, SharedWork<unknown>>();
  #last = 0;

  constructor(scratch: ScratchPlace, measurer: PageMeasurer) {
    this.#scratch = scratch;
    this.#measurer = measurer;
    this.#outputs = new Outputs(scratch);
  }

  readonly handlers: Handlers = {
    about: async () => {
      const { variant } = await loadKernel({ arenaBytes: 1 << 16 });
      const memoryLimit = this.#scratch instanceof MemoryScratch ? this.#scratch.limit : 0;
      return { helpers: this.#measurer.helpers, kernel: variant, scratch: this.#scratch.kind, memoryLimit };
    },
    open: async (input, context) => {
      const id = ++this.#last;
      try {
        const file = await ViewedFile.open(id, input, this.#scratch, context, (opening) => {
          this.#opening.set(id, opening);
          context.part(opening.opening);
        });
        this.#files.set(id, file);
        return file.opened;
      } finally {
        this.#opening.delete(id);
      }
    },
    close: async (id) => {
      const file = this.#file(id);
      this.#files.delete(id);
      for (const key of this.#works.keys()) if (key.split(' ').includes(`file-${id}`)) this.#works.delete(key);
      for (const each of this.#files.values()) for (const block of each.blocks) block.forgetDifference(id);
      await file.close();
    },
    prepare: async ({ file, block, layer, base }, context) => {
      if (layer === 'entropy') await this.#measure(this.#file(file), block, context);
      else if (layer === 'difference') await this.#diff(base ?? 0, file, context);
    },
    map: async (query) => {
      const file = this.#opening.get(query.file) ?? this.#file(query.file);
      return file.block(query.block).map(query);
    },
    page: async ({ file: id, block: index, page }) => {
      const file = this.#file(id);
      const layers = file.block(index);
      const { block } = layers;
      const facts = layers.facts(page);
      const { mapped } = block;
      if (mapped !== undefined) {
        const fileOffset = facts.state === 'data' ? mapped.pagesOffset + page * block.pageSize : undefined;
        return { ...facts, fileOffset };
      }
      const ram = file.knownContent?.ram;
      return { ...facts, fileOffset: ram instanceof StreamIndex ? ram.placeOf(block, page) : undefined };
    },
    read: (query, context) => this.#read(query, context),
    bytes: async ({ file, place, length }, context) => {
      requireLength(length, maxBytes);
      const source = await this.#file(file).origin.openBytes(place, { signal: context.signal });
      try {
        const bytes = new Uint8Array(length);
        let count = 0;
        for (let last = -1; count < length && last !== 0; count += last) {
          last = await source.read(bytes.subarray(count), place.offset + count);
        }
        return { offset: place.offset, bytes: bytes.slice(0, count), size: source.size };
      } finally {
        await source.close();
      }
    },
    search: (query, context) => this.#search(this.#file(query.file), query, context),
    devices: async ({ file, path, from }) => this.#file(file).devices().children(path, from),
    findDevices: async ({ file, text, limit = 200 }, context) => {
      return this.#file(file).devices().find(text, limit, context.signal);
    },
    deviceJson: async ({ file, device }) => {
      return [...deviceToJson(this.#file(file).devices().device(device))].join('');
    },
    verify: ({ file }, context) => this.#file(file).verify(context),
    diff: ({ base, file }, context) => this.#diff(base, file, context),
    convert: ({ file: id, format, target, name }, context) => {
      const file = this.#file(id);
      const given = name ?? `${file.origin.name}.${suffixes[format]}`;
      return this.#outputs.convert(file, format, given, target, context);
    },
    exportBlock: ({ file: id, block, target, name }, context) => {
      const file = this.#file(id);
      return this.#outputs.exportBlock(file, block, name ?? `${file.block(block).block.idstr}.raw`, target, context);
    },
    exportBlocks: ({ file: id, target, name }, context) => {
      const file = this.#file(id);
      return this.#outputs.exportBlocks(file, name ?? `${file.origin.name}.blocks.zip`, target, context);
    },
    release: (ticket) => this.#outputs.release(ticket),
  };

  #file(id: number): ViewedFile {
    const file = this.#files.get(id);
    if (file === undefined) throw new RangeError(`expected the number of an open file, got ${id}`);
    return file;
  }

  /** Does work once for all calls with the same key. */
  #once<Result>(key: string, work: (context: WorkContext) => Promise<Result>, context: CallContext) {
    const known = (this.#works.get(key) as SharedWork<Result> | undefined) ?? new SharedWork(work);
    this.#works.set(key, known);
    return known.get(context);
  }

  async #read(
    { file: id, block: index, offset, length }: { file: number; block: number; offset: number; length: number },
    context: CallContext,
  ): Promise<RamBytes> {
    requireLength(length, maxRead);
    const file = this.#file(id);
    const { block } = file.block(index);
    if (!Number.isSafeInteger(offset) || offset < 0 || offset > block.usedLength) {
      throw new RangeError(`${block.idstr}: expected an offset up to ${block.usedLength}, got ${offset}`);
    }
    const { ram } = await file.content(context);
    const { pageSize, usedLength } = block;
    const end = Math.min(usedLength, offset + length);
    const first = Math.floor(offset / pageSize);
    const pages = new Uint8Array((Math.ceil(end / pageSize) - first) * pageSize);
    if (pages.length > 0) await ram.read(ram.blocks[index] ?? block, first, pages);
    const from = offset - first * pageSize;
    return { offset, bytes: pages.slice(from, from + end - offset) };
  }

  async #measure(file: ViewedFile, index: number, context: CallContext): Promise<void> {
    const layers = file.block(index);
    const { ram } = await file.content(context);
    await this.#once(
      `entropy file-${file.id} ${index}`,
      (shared) => layers.measureEntropy(ram, this.#measurer, shared),
      context,
    );
  }

  async #diff(base: number, id: number, context: CallContext) {
    const [older, file] = [this.#file(base), this.#file(id)];
    const old = await older.content(context);
    const now = await file.content(context);
    return this.#once(
      `difference file-${base} file-${id}`,
      async (shared) => {
        const total = now.ram.blocks.reduce((sum, { usedLength }) => sum + usedLength, 0);
        const meter = new Meter(shared, 'comparing', total);
        const compared = now.ram.blocks.map(() => 0);
        for (const block of file.blocks) block.beginDifference(base);
        const result = await diffVms(old, now, {
          watch: ({ newBlock }, span) => {
            shared.signal.throwIfAborted();
            file.block(newBlock.index).addDifference(base, span);
            compared[newBlock.index] = span.first + span.count;
            meter.add(span.count * newBlock.pageSize);
          },
        });
        for (const [i, block] of file.blocks.entries()) block.endDifference(base, compared[i] ?? 0);
        return result;
      },
      context,
    );
  }

  async #search(file: ViewedFile, query: SearchQuery, context: CallContext): Promise<SearchResult> {
    const { limit = 1000, context: around = 16 } = query;
    const searcher = await Searcher.make(patternOf(query), { before: around, after: around });
    const { ram } = await file.content(context);
    const blocks = ram.blocks.filter(({ index }) => query.block === undefined || index === query.block);
    const meter = new Meter(
      context,
      'searching',
      blocks.reduce((sum, { usedLength }) => sum + usedLength, 0),
    );
    let count = 0;
    for (const [i, block] of blocks.entries()) {
      const before = blocks.slice(0, i).reduce((sum, { usedLength }) => sum + usedLength, 0);
      for await (const matches of searcher.search(ram, block)) {
        context.signal.throwIfAborted();
        const part: SearchMatch[] = [];
        for (const { offset, bytes, before, after } of matches) {
          part.push({ block: block.index, offset, bytes: bytes.slice(), before: before.slice(), after: after.slice() });
          if (++count >= limit) break;
        }
        if (part.length > 0) context.part(part);
        if (count >= limit) return { matches: count, limited: true };
        const last = part.at(-1);
        if (last !== undefined) meter.reach(before + last.offset);
      }
      meter.reach(before + pageCount(block) * block.pageSize);
    }
    return { matches: count, limited: false };
  }
}

/** @throws RangeError or SyntaxError for an invalid pattern */
function patternOf({ pattern, kind, ignoreCase = false }: SearchQuery): SearchPattern {
  if (kind === 'hex') return hexPattern(pattern);
  if (kind === 'regex') return new RegExp(pattern, ignoreCase ? 'im' : 'm');
  return textPattern(pattern, { encoding: kind === 'utf16' ? 'utf-16le' : 'utf-8', ignoreCase });
}

function requireLength(length: number, most: number): void {
  if (Number.isSafeInteger(length) && length >= 0 && length <= most) return;
  throw new RangeError(`expected at most ${most} bytes, got ${length}`);
}
