/** The tree of the devices' state, as far as it is open. Nodes are loaded when they come into sight. */
import { signal } from '@preact/signals';
import type { DeviceNode, DevicePath, Viewer } from '../protocol.ts';

export interface TreeRow {
  node: DeviceNode;
  depth: number;
  isOpen: boolean;
  /** Position among its siblings, from 1, and the number of siblings. */
  position: number;
  siblings: number;
  /** Lists that end after this row, although `left` more nodes are not loaded. */
  cut: { path: DevicePath; left: number; depth: number }[];
}

/** A path as a key of a map or list. */
export const pathKey = (path: DevicePath): string => path.join('.');

export class DeviceTree {
  /** The open rows, from top to bottom. */
  readonly rows = signal<TreeRow[]>([]);
  readonly failure = signal<unknown>(undefined);
  readonly #viewer: Viewer;
  readonly #file: number;
  readonly #children = new Map<string, DeviceNode[]>();
  /** Number of children, loaded or not. */
  readonly #totals = new Map<string, number>();
  readonly #open = new Set<string>(['']);

  constructor(viewer: Viewer, file: number) {
    this.#viewer = viewer;
    this.#file = file;
  }

  /** Loads the devices. */
  async start(): Promise<void> {
    await this.#load([]);
    this.#list();
  }

  /** Loads the devices after a failure. What was loaded before stays. */
  async retry(): Promise<void> {
    this.failure.value = undefined;
    await this.start();
  }

  async setOpen(path: DevicePath, isOpen: boolean): Promise<void> {
    const key = pathKey(path);
    if (isOpen) {
      await this.#load(path);
      this.#open.add(key);
    } else {
      this.#open.delete(key);
    }
    this.#list();
  }

  /** Number of devices. */
  get total(): number {
    return this.#totals.get('') ?? 0;
  }

  /** Loads more children of a node. */
  async loadMore(path: DevicePath): Promise<void> {
    await this.#load(path, this.#children.get(pathKey(path))?.length);
    this.#list();
  }

  /** Opens all nodes above a node. */
  async reveal(path: DevicePath): Promise<void> {
    for (let depth = 0; depth < path.length; depth++) {
      const above = path.slice(0, depth);
      await this.#load(above, path[depth]);
      this.#open.add(pathKey(above));
    }
    this.#list();
  }

  /** Loads the children of a node, at least up to the position `upTo`. */
  async #load(path: DevicePath, upTo = 0): Promise<void> {
    const key = pathKey(path);
    const nodes = this.#children.get(key) ?? [];
    try {
      for (;;) {
        if (this.#children.has(key) && nodes.length > upTo) break;
        const query = { file: this.#file, path, from: nodes.length };
        const { nodes: more, total } = await this.#viewer.devices(query);
        nodes.push(...more);
        this.#children.set(key, nodes);
        this.#totals.set(key, total);
        if (more.length === 0 || nodes.length >= total) break;
      }
    } catch (error) {
      this.failure.value = error;
    }
  }

  #list(): void {
    const rows: TreeRow[] = [];
    const add = (path: DevicePath, depth: number) => {
      const nodes = this.#children.get(pathKey(path)) ?? [];
      const siblings = this.#totals.get(pathKey(path)) ?? nodes.length;
      for (const [i, node] of nodes.entries()) {
        const isOpen = node.children > 0 && this.#open.has(pathKey(node.path));
        rows.push({ node, depth, isOpen, position: i + 1, siblings, cut: [] });
        if (isOpen) add(node.path, depth + 1);
      }
      if (siblings > nodes.length) rows.at(-1)?.cut.push({ path, left: siblings - nodes.length, depth });
    };
    add([], 1);
    this.rows.value = rows;
  }
}
