/**
 * A file on a server, for a page server: what a guest asks for should not wait for a request each time. So it is mirrored
 * (`io/mirror-source.ts`) to the file of --cache, or to a scratch file, and what is known to be needed is fetched ahead.
 */
import { realpathSync } from 'node:fs';
import { isHttp, openHttp } from '../../io/http-source.ts';
import { MirrorSource } from '../../io/mirror-source.ts';
import { openMirror } from '../../io/node/mirror-file.ts';
import { openScratch } from '../../io/node/output-file.ts';
import { type OrderLine, pagesInOrder } from '../../migrate/page-order.ts';
import { open } from '../../node.ts';
import type { MigrationFile } from '../../read/open.ts';
import type { OpenedVm } from '../../store/ram-content.ts';
import { UsageError } from '../exit-codes.ts';
import { type InputOptions, openInput } from '../input.ts';

export interface RemoteOptions extends InputOptions {
  cache?: string;
  scratch: string;
}

/** A file, and what was opened for it. */
export interface ServedInput {
  file: MigrationFile;
  /** Fetches the pages of an order ahead. */
  prefetch(vm: OpenedVm, order: readonly OrderLine[]): void;
  close(): Promise<void>;
}

/** @throws UsageError for a cache of a file that is not on a server */
export async function openServed(location: string, options: RemoteOptions, signal: AbortSignal): Promise<ServedInput> {
  const isPlain = isHttp(location) && !/#|,offset=/.test(location);
  if (options.cache !== undefined && !isPlain) throw new UsageError('--cache goes with a file on a server');
  if (!isPlain) return local(await openInput(location, options));
  const source = await openHttp(location, { signal });
  if (source.size === undefined) {
    if (options.cache !== undefined) throw new UsageError('--cache needs a server that answers range requests');
    return local(await open(source));
  }
  const mirror =
    options.cache === undefined
      ? await scratchMirror(source, options.scratch)
      : await openMirror(options.cache, source);
  const file = await open(mirror.source);
  return {
    file,
    prefetch(vm, order) {
      for (const { block, first, end } of pagesInOrder(order, vm.ram.blocks)) {
        const { mapped, pageSize } = block;
        if (mapped === undefined) continue;
        mirror.source.prefetch(mapped.pagesOffset + first * pageSize, (end - first) * pageSize);
      }
    },
    async close() {
      await file.close();
      await mirror.close();
    },
  };
}

const local = (file: MigrationFile): ServedInput => ({ file, prefetch() {}, close: () => file.close() });

async function scratchMirror(source: Awaited<ReturnType<typeof openHttp>>, scratch: string) {
  const copy = openScratch(realpathSync(scratch));
  await copy.truncate(source.size ?? 0);
  const mirror = new MirrorSource(source, copy);
  return {
    source: mirror,
    async close() {
      await mirror.close();
      await copy.close();
      await source.close();
    },
  };
}
