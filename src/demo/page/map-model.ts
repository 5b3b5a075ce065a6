/** The state of the RAM map: the block, the layer that colours it, and the page under the cursor. */
import { batch, signal } from '@preact/signals';
import {
  type BlockView,
  type CellMap,
  type Layer,
  type LayerQuery,
  type OpenedFile,
  type PageFacts,
  pageStates,
  type Viewer,
} from '../protocol.ts';
import { Task } from './task.ts';

/** Pages at the beginning of a block that are searched for data. */
const searchedPages = 1 << 16;

export class MapModel {
  readonly block = signal(0);
  readonly layer = signal<Layer>('state');
  /** The page under the cursor. */
  readonly cursor = signal(0);
  /** The second file, for the layer `difference`. */
  readonly base = signal<OpenedFile | undefined>(undefined);
  /** Increases when more of the layer is known. */
  readonly revision = signal(0);
  /** The call that computes the layer. */
  readonly preparing = new Task<void>();
  readonly file: OpenedFile;
  readonly #viewer: Viewer;

  constructor(viewer: Viewer, file: OpenedFile) {
    this.#viewer = viewer;
    this.file = file;
    // The largest block is the main RAM.
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

  /** Colours the block by a layer. Computes the layer first if necessary. */
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

  /** The first page of the block with data, if it is near the beginning. */
  async firstDataPage(): Promise<number | undefined> {
    const block = this.block.value;
    const cells = Math.min(this.view?.pages ?? 0, searchedPages);
    if (cells === 0) return undefined;
    const found = await this.#viewer.map({
      file: this.file.id,
      block,
      layer: 'state',
      first: 0,
      pagesPerCell: 1,
      cells,
    });
    if (found.kind !== 'classes') return undefined;
    const data = pageStates.indexOf('data');
    for (let page = 0; page < cells; page++) if ((found.counts[page * found.classes + data] ?? 0) > 0) return page;
    return undefined;
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
