/** What the RAM map shows: which block, by what it is coloured, and which page the cursor is on. */
import { batch, signal } from '@preact/signals';
import type { BlockView, CellMap, Layer, LayerQuery, OpenedFile, PageFacts, Viewer } from './protocol.ts';
import { Task } from './task.ts';

export class MapModel {
  readonly block = signal(0);
  readonly layer = signal<Layer>('state');
  /** Page that the cursor is on. */
  readonly cursor = signal(0);
  /** The second file, for the layer `difference`. */
  readonly base = signal<OpenedFile | undefined>(undefined);
  /** Counts up whenever more is known of the layer. */
  readonly revision = signal(0);
  /** The reading that a layer needs. */
  readonly preparing = new Task<void>();
  readonly file: OpenedFile;
  readonly #viewer: Viewer;

  constructor(viewer: Viewer, file: OpenedFile) {
    this.#viewer = viewer;
    this.file = file;
    // The main RAM is what one wants to see.
    for (const { index, pages } of file.blocks) if (pages > (this.view?.pages ?? 0)) this.block.value = index;
  }

  get view(): BlockView | undefined {
    return this.file.blocks[this.block.value];
  }

  /** Goes to a page of a block. */
  select(block: number, page: number): void {
    const isOther = block !== this.block.value;
    batch(() => {
      this.block.value = block;
      this.cursor.value = page;
    });
    if (isOther) this.show(this.layer.value);
  }

  /** Colours the block by a layer, which is read first, if need be. */
  show(layer: Layer): void {
    this.layer.value = layer;
    void this.preparing.run(async (options) => {
      const onProgress: typeof options.onProgress = (progress) => {
        this.revision.value++;
        options.onProgress?.(progress);
      };
      await this.#viewer.prepare(this.#query(), { ...options, onProgress });
      this.revision.value++;
    });
  }

  cells(first: number, pagesPerCell: number, cells: number): Promise<CellMap> {
    return this.#viewer.map({ ...this.#query(), first, pagesPerCell, cells });
  }

  facts(block: number, page: number): Promise<PageFacts> {
    return this.#viewer.page({ file: this.file.id, block, page });
  }

  end(): void {
    this.preparing.cancel();
  }

  #query(): LayerQuery {
    const base = this.base.value;
    const query = { file: this.file.id, block: this.block.value, layer: this.layer.value };
    return base === undefined ? query : { ...query, base: base.id };
  }
}
