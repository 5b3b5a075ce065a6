/** What a monitor asks of block nodes: query-block, query-named-block-nodes and block-dirty-bitmap-*. */
import type { BlockBitmap } from '../../migrate/block-bitmap.ts';
import type { BlockNode, BlockNodes } from '../../migrate/block-node.ts';
import type { Schema } from '../../schema/qapi/schema.ts';
import type { JsonObject } from '../json-value.ts';
import type { Handler } from '../server.ts';

/** The answers depend on the release that `schema` is of. */
export function blockHandlers(nodes: BlockNodes, schema: Schema): Record<string, Handler> {
  const info = new NodeInfo(nodes, schema);
  return {
    'query-block': () => nodes.list.map((node) => info.device(node)),
    'query-named-block-nodes': () => [...nodes.list].reverse().flatMap((node) => info.nodes(node)),
    'query-block-jobs': () => [],
    ...bitmapHandlers(nodes),
  };
}

class NodeInfo {
  readonly #nodes: BlockNodes;
  readonly #schema: Schema;

  constructor(nodes: BlockNodes, schema: Schema) {
    this.#nodes = nodes;
    this.#schema = schema;
  }

  device(node: BlockNode): object {
    return { device: node.id, locked: false, removable: true, inserted: this.#format(node), type: 'unknown' };
  }

  /** The node of the format, and that of its file. */
  nodes(node: BlockNode): object[] {
    return [this.#format(node), this.#file(node)];
  }

  #format(node: BlockNode): object {
    return this.#node(node, {
      image: imageOf(node),
      name: node.id,
      driver: node.image === undefined ? 'raw' : 'qcow2',
      bitmaps: node.bitmaps.map(bitmapInfo),
    });
  }

  #file(node: BlockNode): object {
    const image = {
      ...{ 'virtual-size': Math.ceil(node.store.size / 512) * 512, filename: node.path, format: 'file' },
      'actual-size': node.allocatedBytes(),
      ...(this.#schema.isUntil('7.2') ? {} : { 'format-specific': { type: 'file', data: {} } }),
      'dirty-flag': false,
    };
    // QEMU adds two random digits to its own count.
    const index = this.#nodes.list.indexOf(node);
    return this.#node(node, {
      image,
      name: `#block${index}${10 + ((37 * index + 29) % 90)}`,
      driver: 'file',
      bitmaps: [],
    });
  }

  #node(node: BlockNode, own: { image: object; name: string; driver: string; bitmaps: object[] }): object {
    return {
      ...{
        iops_rd: 0,
        detect_zeroes: 'off',
        ...(this.#schema.isUntil('9.0') ? {} : { active: true }),
        image: own.image,
        iops_wr: 0,
        ro: false,
      },
      ...{ 'node-name': own.name, backing_file_depth: 0, drv: own.driver, iops: 0, bps_wr: 0, write_threshold: 0 },
      ...(own.bitmaps.length === 0 ? {} : { 'dirty-bitmaps': own.bitmaps }),
      ...{ encrypted: false, bps: 0, bps_rd: 0 },
      ...{ cache: { 'no-flush': false, direct: false, writeback: true }, file: node.path },
    };
  }
}

function imageOf(node: BlockNode): object {
  const { image, diskSize, path } = node;
  const allocated = { 'actual-size': node.allocatedBytes() };
  if (image === undefined) {
    return { 'virtual-size': diskSize, filename: path, format: 'raw', ...allocated, 'dirty-flag': false };
  }
  const { header, snapshots, refcountBits, hasLazyRefcounts } = image;
  const isV3 = header.version === 3;
  const data = {
    ...{ compat: isV3 ? '1.1' : '0.10', 'compression-type': header.compression === 'zstd' ? 'zstd' : 'zlib' },
    ...(isV3 ? { 'lazy-refcounts': hasLazyRefcounts } : {}),
    'refcount-bits': refcountBits,
    ...(isV3 ? { corrupt: false, 'extended-l2': header.hasExtendedL2 } : {}),
  };
  const listed = snapshots.map((each) => ({
    ...{ 'vm-clock-nsec': Number(each.vmClock % 1_000_000_000n), name: each.name },
    ...{ 'date-sec': each.dateSeconds, 'date-nsec': each.dateNanoseconds },
    ...{ 'vm-clock-sec': Number(each.vmClock / 1_000_000_000n), id: each.id, 'vm-state-size': each.vmStateSize },
  }));
  return {
    ...(listed.length === 0 ? {} : { snapshots: listed }),
    ...{ 'virtual-size': diskSize, filename: path, 'cluster-size': 2 ** header.clusterBits, format: 'qcow2' },
    ...allocated,
    ...{ 'format-specific': { type: 'qcow2', data }, 'dirty-flag': false },
  };
}

const bitmapInfo = (bitmap: BlockBitmap) => ({
  ...{ name: bitmap.name, recording: bitmap.isEnabled, persistent: bitmap.isPersistent, busy: bitmap.isBusy },
  ...{ granularity: bitmap.granularity, count: bitmap.count },
  ...(bitmap.isInconsistent ? { inconsistent: true } : {}),
});

function bitmapHandlers(nodes: BlockNodes): Record<string, Handler> {
  const find = (node: unknown, name: unknown): { node: BlockNode; bitmap: BlockBitmap } => {
    const found = nodes.get(String(node));
    if (found === undefined) throw new Error(`Node '${node}' not found`);
    return { node: found, bitmap: found.bitmap(String(name)) };
  };
  const usable = ({ node, name }: JsonObject) => {
    const { bitmap } = find(node, name);
    bitmap.requireUsable();
    return bitmap;
  };
  return {
    'block-dirty-bitmap-add': ({ node, name, granularity, persistent = false, disabled = false }) => {
      if (name === '') throw new Error('Bitmap name cannot be empty');
      const found = nodes.get(String(node));
      if (found === undefined) throw new Error(`Cannot find device='${node}' nor node-name='${node}'`);
      found.addBitmap(String(name), {
        ...(granularity === undefined ? {} : { granularity: Number(granularity) }),
        ...{ isEnabled: disabled !== true, isPersistent: persistent === true },
      });
    },
    'block-dirty-bitmap-remove': (given) => {
      const { node, bitmap } = find(given.node, given.name);
      bitmap.requireIdle();
      return node.forgetBitmap(bitmap);
    },
    'block-dirty-bitmap-clear': (given) => usable(given).clear(),
    'block-dirty-bitmap-enable': (given) => {
      usable(given).isEnabled = true;
    },
    'block-dirty-bitmap-disable': (given) => {
      usable(given).isEnabled = false;
    },
    'block-dirty-bitmap-merge': ({ node, target, bitmaps }) => {
      const { bitmap } = find(node, target);
      const sources = (bitmaps as (string | JsonObject)[]).map((source) =>
        typeof source === 'string' ? find(node, source).bitmap : find(source.node, source.name).bitmap,
      );
      bitmap.requireUsable();
      for (const source of sources) source.requireUsable();
      for (const source of sources) bitmap.merge(source);
    },
  };
}
