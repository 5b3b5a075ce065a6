/** Takes a VM state and puts it into free clusters of a qcow2 image. Nothing in the image refers to them yet. */
import type { ByteSink, ByteStore } from '../../io/byte-source.ts';
import type { Refcounts } from './refcounts.ts';

/** Bytes that are written at once, if the clusters are smaller. */
const bufferBytes = 1 << 20;

export class VmStateWriter implements ByteSink {
  readonly #store: ByteStore;
  readonly #refcounts: Refcounts;
  readonly #clusterSize: number;
  readonly #buffer: Uint8Array;
  #filled = 0;
  #size = 0;
  readonly #offsets: number[] = [];

  constructor(store: ByteStore, refcounts: Refcounts, clusterSize: number) {
    this.#store = store;
    this.#refcounts = refcounts;
    this.#clusterSize = clusterSize;
    this.#buffer = new Uint8Array(Math.max(bufferBytes, clusterSize));
  }

  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const piece = bytes.subarray(done, done + this.#buffer.length - this.#filled);
      this.#buffer.set(piece, this.#filled);
      this.#filled += piece.length;
      this.#size += piece.length;
      done += piece.length;
      if (this.#filled === this.#buffer.length) await this.#flush();
    }
  }

  /** Ends the state; its last cluster is filled up with zeros. Returns the offsets of its clusters. */
  async finish(): Promise<number[]> {
    const end = Math.ceil(this.#filled / this.#clusterSize) * this.#clusterSize;
    this.#buffer.fill(0, this.#filled, end);
    this.#filled = end;
    await this.#flush();
    return this.#offsets;
  }

  /** Writes the clusters of the buffer; those that follow each other in the file at once. */
  async #flush(): Promise<void> {
    const clusters = Array.from({ length: this.#filled / this.#clusterSize }, () => this.#refcounts.allocate());
    for (let from = 0; from < clusters.length; ) {
      let to = from + 1;
      while (to < clusters.length && clusters[to] === (clusters[to - 1] as number) + this.#clusterSize) to++;
      const bytes = this.#buffer.subarray(from * this.#clusterSize, to * this.#clusterSize);
      await this.#store.write(bytes, clusters[from] as number);
      from = to;
    }
    for (const cluster of clusters) this.#offsets.push(cluster);
    this.#filled = 0;
  }
}
