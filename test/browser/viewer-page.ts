/** Runs in the page: calls the viewer's worker, and returns results to the test as JSON. */

import {
  type CallOptions,
  type FileInput,
  type OpeningFile,
  type Target,
  ViewerError,
} from '../../src/demo/protocol.ts';
import { connect } from '../../src/demo/rpc.ts';
import type { PartRole } from '../../src/read/sort-parts.ts';

const viewer = connect(new Worker('/viewer-worker.js', { type: 'module' }));
/** Files that calls returned, by name. */
const saved = new Map<string, File>();
/** Most bytes of one read. */
const pieceBytes = 4 << 20;

async function sha256(pieces: BlobPart[]): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', await new Blob(pieces).arrayBuffer());
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** A capture by its name under /captures/, the chosen file, a saved file, or a URL. */
export type Wanted =
  | { captures: string[]; roles?: PartRole[] }
  | { picked: true }
  | { saved: string }
  | { url: string };

async function inputOf(wanted: Wanted, where: { offset?: number; snapshot?: string }): Promise<FileInput> {
  if ('url' in wanted) return { url: new URL(wanted.url, location.href).href, ...where };
  if ('saved' in wanted) return { files: [saved.get(wanted.saved) as File], ...where };
  if ('picked' in wanted) {
    const input = document.querySelector<HTMLInputElement>('input[type=file]');
    return { files: [...(input?.files ?? [])], ...where };
  }
  const files: File[] = [];
  for (const name of wanted.captures) files.push(new File([await (await fetch(`/captures/${name}`)).blob()], name));
  return { files, ...(wanted.roles === undefined ? {} : { roles: wanted.roles }), ...where };
}

/** The result of `work`, or the failure that ended it. */
async function tell<Result>(work: () => Promise<Result>) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ViewerError) return { failure: error.failure };
    throw error;
  }
}

async function hashBlocks(file: number, blocks: { index: number; idstr: string; usedLength: number }[]) {
  const digests: Record<string, string> = {};
  for (const { index, idstr, usedLength } of blocks) {
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    for (let offset = 0; offset < usedLength; offset += pieceBytes) {
      const { bytes } = await viewer.read({ file, block: index, offset, length: pieceBytes });
      pieces.push(bytes as Uint8Array<ArrayBuffer>);
    }
    digests[idstr] = await sha256(pieces);
  }
  return digests;
}

const page = {
  about: () => viewer.about(),
  open: (wanted: Wanted, where: { offset?: number; snapshot?: string } = {}) =>
    tell(async () => viewer.open(await inputOf(wanted, where))),
  close: (file: number) => viewer.close(file),

  /** Opens the chosen file, and cancels that at the first progress after the RAM blocks are known. */
  cancelOpening: () =>
    tell(async () => {
      const controller = new AbortController();
      // The blocks are known, and most of the file is still to be read.
      const options = { signal: controller.signal, onPart: () => controller.abort() };
      await viewer.open(await inputOf({ picked: true }, {}), options);
    }),

  /**
   * Opens a file, and looks at the map at each progress. Then asks for everything that the page shows at once.
   */
  async openAndShow(wanted: Wanted) {
    return tell(async () => {
      const absent: number[] = [];
      let part: OpeningFile | undefined;
      const looks: Promise<unknown>[] = [];
      const look = async (file: OpeningFile) => {
        const [block] = file.blocks;
        if (block === undefined) return;
        const query = { file: file.id, block: block.index, layer: 'state', first: 0 } as const;
        const map = await viewer.map({ ...query, pagesPerCell: block.pages, cells: 1 });
        if (map.kind === 'classes') absent.push(map.counts[0] ?? 0);
      };
      const opened = await viewer.open(await inputOf(wanted, {}), {
        onPart: (known) => {
          part = known;
        },
        // The file may be open before the answer.
        onProgress: () => {
          if (part !== undefined) looks.push(look(part).catch(() => {}));
        },
      });
      await Promise.all(looks);
      const { id: file, isVerified, blocks } = opened;
      const { ok, findings } = await viewer.verify({ file });
      const devices = (await viewer.devices({ file, path: [] })).total;
      const facts = await viewer.page({ file, block: 0, page: 0 });
      return { file, isVerified, ok, findings, devices, facts, absent, part, blocks };
    });
  },

  /**
   * Opens a file and reports everything: inspection, verification, hashes of RAM, and the pages of each layer by class.
   */
  async examine(wanted: Wanted, where: { offset?: number; snapshot?: string } = {}) {
    return tell(async () => {
      const opened = await viewer.open(await inputOf(wanted, where));
      const { id: file, inspection, blocks } = opened;
      const verification = await viewer.verify({ file });
      const digests = await tell(() => hashBlocks(file, blocks));
      const devices = await viewer.devices({ file, path: [] });
      await viewer.close(file);
      return { inspection, verification, digests, devices: devices.nodes.map(({ label }) => label) };
    });
  },

  /** The bytes of Blobs that the worker has read since the last call: file, start and end. */
  reads: () =>
    new Promise<[file: string, start: number, end: number][]>((resolve) => {
      const channel = new BroadcastChannel('reads');
      channel.onmessage = ({ data }) => {
        channel.close();
        resolve(data);
      };
      channel.postMessage('ask');
    }),

  hashBlocks: (file: number, blocks: Parameters<typeof hashBlocks>[1]) => tell(() => hashBlocks(file, blocks)),

  /** Calls any method. If requested, it aborts the signal at the first progress or part. */
  async call(method: keyof typeof viewer, query: unknown, cancelled = false) {
    const parts: unknown[] = [];
    let progress = 0;
    const result = await tell(async () => {
      const controller = new AbortController();
      const options: CallOptions<never> = {
        signal: controller.signal,
        onProgress: () => {
          progress++;
          if (cancelled) controller.abort();
        },
        onPart: (part) => {
          parts.push(part);
        },
      };
      const run = viewer[method] as (query: unknown, options: CallOptions<never>) => Promise<unknown>;
      return run(query, options);
    });
    const plain = (value: unknown): unknown =>
      JSON.parse(
        JSON.stringify(value ?? null, (_, each) => {
          if (each instanceof Uint8Array || each instanceof Uint32Array) return Array.from(each);
          return typeof each === 'bigint' ? `${each}n` : each;
        }),
      );
    return { result: plain(result), parts: plain(parts), progress };
  },

  /** Writes an output, keeps the file, and returns the report. */
  async save(method: 'convert' | 'exportBlock', query: { target: Target } & Record<string, unknown>) {
    return tell(async () => {
      const run = viewer[method] as (query: unknown) => ReturnType<typeof viewer.convert>;
      const { file, ...said } = await run(query);
      if (file === undefined) return said;
      saved.set(file.name, file);
      return { ...said, name: file.name, size: file.size, sha256: await sha256([file]) };
    });
  },

  /** Like `save`, but into a chosen file. A file of the private file system stands for it. */
  async saveTo(method: 'convert' | 'exportBlock', query: Record<string, unknown>, name: string) {
    const handle = await (await navigator.storage.getDirectory()).getFileHandle(name, { create: true });
    const said = await page.save(method, { ...query, target: { handle } });
    const file = await handle.getFile();
    saved.set(name, file);
    return { said, size: file.size };
  },

  /** The contents of the private file system, by path. */
  async listScratch() {
    const list = async (folder: FileSystemDirectoryHandle, path: string): Promise<string[]> => {
      const paths: string[] = [];
      const entries = (folder as unknown as { values(): AsyncIterable<FileSystemHandle> }).values();
      for await (const entry of entries) {
        const at = `${path}/${entry.name}`;
        if (entry.kind === 'directory') paths.push(...(await list(entry as FileSystemDirectoryHandle, at)));
        else paths.push(at);
      }
      return paths;
    };
    return list(await navigator.storage.getDirectory(), '');
  },

  /** Leaves a file of a session that has ended. */
  async leaveScratch(name: string) {
    let folder = await navigator.storage.getDirectory();
    for (const each of ['vmferry-scratch', name]) folder = await folder.getDirectoryHandle(each, { create: true });
    await folder.getFileHandle('0', { create: true });
  },
};

export type ViewerPage = typeof page;

Object.assign(globalThis, { viewerPage: page });
