/** Several worker threads write the pages of one mapped-ram file. Each has its own file handle and kernels. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import {
  loadKernel,
  MappedRamStore,
  OutputFile,
  open,
  openRamContent,
  PageSlots,
  pageSlotsArenaBytes,
  readBytes,
  verify,
  type WrittenPages,
} from '../../src/node.ts';

const library = new URL('../../dist/node.js', import.meta.url).href;

const pageSize = 4096;
const pages = 3000;
const workers = 4;
const rounds = 3;

/** The final content of a page. Each round writes it again, by another worker, and every seventh page becomes zero. */
const lastByte = (page: number) => (page % 7 === 0 ? 0 : (page * 31 + rounds - 1) & 0xff || 1);

const script = `
import { openSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { loadKernel, MappedRamPages, NodeFile, PageBatch, PageKind, PageSlots, pageSlotsArenaBytes } from ${JSON.stringify(library)};
const { path, blocks, number } = workerData;
const kernel = await loadKernel({ arenaBytes: (4 << 20) + pageSlotsArenaBytes(256) });
const file = new NodeFile(openSync(path, 'r+'), path, 0);
const written = new MappedRamPages(file, new PageSlots(kernel, 256), blocks);
const batch = new PageBatch(kernel, 256);
const room = kernel.allocate(256 * ${pageSize});
parentPort.on('message', async (round) => {
  if (round < 0) return process.exit(0);
  // Runs of 16 pages go to the workers in turn, to another worker each round, from the last page to the first.
  const mine = [];
  for (let page = 0; page < ${pages}; page++) if ((Math.floor(page / 16) + round) % ${workers} === number) mine.push(page);
  for (let end = mine.length; end > 0; end -= 256) {
    const part = mine.slice(Math.max(0, end - 256), end);
    batch.clear();
    for (const [i, page] of part.entries()) {
      const isZero = page % 7 === 0 && round === ${rounds - 1};
      batch.kind[i] = PageKind.data;
      batch.page[i] = page;
      batch.data[i] = room + i * ${pageSize};
      batch.length[i] = ${pageSize};
      kernel.bytes.fill(isZero ? 0 : ((page * 31 + round) & 0xff) || 1, batch.data[i], batch.data[i] + ${pageSize});
    }
    batch.count = part.length;
    await written.apply(blocks[0], batch);
  }
  parentPort.postMessage(written.take());
});`;

describe('workers', () => {
  it('write the pages of one mapped-ram file, in any order and more than once', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'vmferry-workers-'));
    const running: Worker[] = [];
    try {
      const path = join(directory, 'guest.mapped-ram');
      const output = new OutputFile(path);
      const kernel = await loadKernel({ arenaBytes: (64 << 10) + pageSlotsArenaBytes(256) });
      const store = new MappedRamStore(output.file, new PageSlots(kernel, 256));
      const block = await store.addBlock({ index: 0, idstr: 'ram', usedLength: pages * pageSize, pageSize });
      for (let number = 0; number < workers; number++) {
        const workerData = { path: `/proc/${process.pid}/fd/${output.file.fd}`, blocks: store.blocks, number };
        const url = new URL(`data:text/javascript,${encodeURIComponent(script)}`);
        running.push(new Worker(url, { workerData }));
      }
      for (let round = 0; round < rounds; round++) {
        const reports = running.map(
          (worker) =>
            new Promise<WrittenPages[]>((resolve, reject) => {
              worker.once('message', resolve).once('error', reject);
              worker.postMessage(round);
            }),
        );
        for (const report of await Promise.all(reports)) store.note(report);
      }
      await store.finish([], undefined);
      expect(store.countPages(block)).toEqual({ dataPages: 2571, zeroPages: 429, absentPages: 0 });
      await output.commit();

      const file = await open(path);
      expect((await verify(file)).findings.map(({ code }) => code)).toEqual(['description-missing']);
      const ram = await openRamContent(file, { makeScratch: () => expect.fail('a mapped-ram file needs no scratch') });
      const found: number[] = [];
      for await (const bytes of readBytes(ram, ram.blocks[0]!)) {
        for (let at = 0; at < bytes.length; at += pageSize) {
          const byte = bytes[at] as number;
          found.push(bytes.subarray(at, at + pageSize).every((each) => each === byte) ? byte : -1);
        }
      }
      expect(found).toEqual(Array.from({ length: pages }, (_, page) => lastByte(page)));
      await file.close();
    } finally {
      for (const worker of running) worker.postMessage(-1);
      await Promise.all(running.map((worker) => new Promise((resolve) => worker.once('exit', resolve))));
      rmSync(directory, { recursive: true });
    }
  });
});
