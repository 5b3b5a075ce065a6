/** The open file and the state of its view: what the user compares, verifies and looks at. */
import { signal } from '@preact/signals';
import type { VmDiff } from '../../tasks/diff/diff.ts';
import type { Verification } from '../../tasks/inspect/verify.ts';
import type { Place } from '../../vm/migration-error.ts';
import type { FileInput, OpenedFile, Viewer } from '../protocol.ts';
import type { BytesPlace } from './bytes-place.ts';
import { MapModel } from './map-model.ts';
import { openWanted } from './open-wanted.ts';
import { Task } from './task.ts';

/** A second file and the differences from it. */
export interface Comparison {
  base: OpenedFile;
  diff: VmDiff;
}

export class Machine {
  readonly viewer: Viewer;
  readonly file: OpenedFile;
  /** What the file was opened from. */
  readonly input: FileInput;
  /** Opens an earlier file to compare with, if the page knows one. */
  readonly earlier: (() => Promise<FileInput>) | undefined;
  readonly map: MapModel;
  readonly verification = new Task<Verification>();
  readonly comparison = new Task<Comparison>();
  /** What the Bytes panel shows. */
  readonly place = signal<BytesPlace>({ kind: 'file', at: { offset: 0 }, length: 0 });
  /** The input of the last comparison. */
  compared: FileInput | undefined;
  #find: (() => Promise<FileInput>) | undefined;
  #base: OpenedFile | undefined;

  constructor(viewer: Viewer, file: OpenedFile, input: FileInput, earlier?: () => Promise<FileInput>) {
    this.viewer = viewer;
    this.file = file;
    this.input = input;
    this.earlier = earlier;
    this.map = new MapModel(viewer, file);
    if (file.blocks.length > 0 && file.inspection.error === undefined) {
      const block = this.map.block.value;
      this.place.value = { kind: 'ram', of: 'file', block, offset: 0, length: 0 };
      void this.#showFirstData(block);
    }
    // A damaged file shows the bytes at the damage.
    if (file.inspection.error !== undefined) this.showFile(file.inspection.error.place, 1);
    if (file.isVerified) void this.verify();
  }

  async verify(): Promise<void> {
    await this.verification.run((options) => this.viewer.verify({ file: this.file.id }, options));
  }

  /** Opens an earlier file and compares it with this one. */
  async compare(find: () => Promise<FileInput>): Promise<void> {
    this.#dropBase();
    this.#find = find;
    this.compared = undefined;
    await this.comparison.run(async (options) => {
      this.compared = await find();
      const base = await openWanted(this.viewer, this.compared, options);
      this.#base = base;
      const diff = await this.viewer.diff({ base: base.id, file: this.file.id }, options);
      this.map.base.value = base;
      this.map.show('difference');
      this.#showFirstDifference(diff);
      return { base, diff };
    });
  }

  /** Tries the last comparison again. */
  async compareAgain(): Promise<void> {
    if (this.#find !== undefined) await this.compare(this.#find);
  }

  stopComparing(): void {
    this.comparison.cancel();
    this.#dropBase();
  }

  /** Shows bytes of a RAM block, and their page on the map. Marks `length` bytes. */
  showRam(block: number, offset: number, length = 0): void {
    this.place.value = { kind: 'ram', of: 'file', block, offset, length };
    const { pageSize } = this.file.blocks[block] ?? {};
    if (pageSize !== undefined) this.map.select(block, Math.floor(offset / pageSize));
  }

  /** Shows bytes of the file itself and marks `length` of them. */
  showFile(at: Pick<Place, 'offset'> & Partial<Place>, length = 0): void {
    this.place.value = { kind: 'file', at, length };
  }

  close(): void {
    this.verification.cancel();
    this.stopComparing();
    this.map.end();
    void this.viewer.close(this.file.id).catch(() => {});
  }

  /** Shows the first page with data, since a page of zeros tells nothing. */
  async #showFirstData(block: number): Promise<void> {
    const begin = this.place.value;
    const page = await this.map.firstDataPage().catch(() => undefined);
    if (page !== undefined && this.place.value === begin) this.showRam(block, page * (this.map.view?.pageSize ?? 0));
  }

  #showFirstDifference({ ram }: VmDiff): void {
    const found = ram?.blocks.find(({ ranges }) => ranges.length > 0);
    const block = this.file.blocks.find(({ idstr }) => idstr === found?.idstr);
    const range = found?.ranges[0];
    if (block !== undefined && range !== undefined) this.showRam(block.index, range.first * block.pageSize);
  }

  #dropBase(): void {
    const base = this.#base;
    this.#base = undefined;
    this.map.base.value = undefined;
    const place = this.place.value;
    if (place.kind === 'ram' && place.of === 'base') this.showRam(this.map.block.value, 0);
    if (this.map.layer.value === 'difference') this.map.show('state');
    if (base !== undefined) void this.viewer.close(base.id).catch(() => {});
  }
}
