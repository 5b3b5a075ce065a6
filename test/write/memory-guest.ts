import type { Guest, GuestBlock, PageBitmap, RamReader, SavedDevices } from '../../src/node.ts';

const PAGE = 4096;

/** A guest in memory that writes on command, and remembers where. */
export class MemoryGuest implements Guest {
  readonly configuration = { machine: 'none', capabilities: [] };
  readonly blocks: readonly GuestBlock[];
  readonly contents: readonly Uint8Array[];
  readonly ram: RamReader;
  isStopped = false;
  /** Called before each sync, with the number of syncs so far. */
  onSync: (syncs: number) => void = () => {};
  /** Called before each read. */
  onRead: () => void = () => {};
  saved: SavedDevices = { devices: [] };
  #syncs = 0;
  #written = new Set<string>();

  /** Takes the blocks by name and number of pages. Their addresses have gaps between them. */
  constructor(sizes: Record<string, number>) {
    let end = 0;
    this.blocks = Object.entries(sizes).map(([idstr, pages], index) => {
      const ramAddress = end;
      end += (pages + 3) * PAGE;
      return { index, idstr, usedLength: pages * PAGE, pageSize: PAGE, ramAddress };
    });
    this.contents = this.blocks.map(({ usedLength }) => new Uint8Array(usedLength));
    const { blocks, contents } = this;
    this.ram = {
      blocks,
      state: () => 'data',
      read: async ({ index }, page, target) => {
        this.onRead();
        target.set(contents[index]!.subarray(page * PAGE, page * PAGE + target.length));
      },
      nextData: async ({ usedLength }, page, limit) => {
        const pages = usedLength / PAGE;
        return { first: Math.min(page, pages), end: Math.min(page + limit, pages) };
      },
      close: async () => {},
    };
  }

  /** Writes to a page. */
  write(block: number, page: number, at: number, ...bytes: number[]): void {
    if (this.isStopped) throw new Error('the guest is stopped');
    this.contents[block]!.set(bytes, page * PAGE + at);
    this.#written.add(`${block} ${page}`);
  }

  syncDirty(dirty: readonly PageBitmap[]): void {
    this.onSync(++this.#syncs);
    for (const [block, page] of [...this.#written].map((key) => key.split(' ').map(Number))) dirty[block!]!.set(page!);
    this.#written.clear();
  }

  stop(): void {
    this.isStopped = true;
  }

  saveDevices(): SavedDevices {
    if (!this.isStopped) throw new Error('the guest runs');
    return this.saved;
  }
}
