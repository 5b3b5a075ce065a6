/**
 * The disks of a QEMU command line: which of them clones would write together, and how each clone gets an overlay of its own
 * instead.
 */
import { basename } from 'node:path';
import { UsageError } from '../exit-codes.ts';
import { formatKeys, parseKeys, type QemuOption } from './qemu-arguments.ts';

/** An image that a command line names, and that the guest may write. */
export interface Disk {
  readonly option: QemuOption;
  /** The file, or what stands for one. */
  readonly path: string;
  /** The format that the command line says. */
  readonly format: string | undefined;
  /** The value of the option with an overlay in place of the image; undefined: it cannot have one. */
  readonly replaced: ((overlay: string) => string) | undefined;
}

/** Options whose value is an image. */
const imageOptions = new Set('hda hdb hdc hdd fda fdb sd mtdblock pflash'.split(' '));
/** Block drivers without content that is kept. */
const volatileDrivers = new Set(['null-co', 'null-aio']);
/** Block drivers of disks on servers, which can be written. */
const remoteDrivers = new Set('nbd rbd iscsi ssh nfs gluster nvme'.split(' '));
const isVolatile = (path: string) => /^(null-co|null-aio|fat):/.test(path) && !path.startsWith('fat:rw:');
const isOn = (value: string | undefined) => value === 'on' || value === 'yes' || value === 'true';

/** The images of a command line that the guest may write. */
export function writableDisks(options: readonly QemuOption[]): Disk[] {
  const areTemporary = options.some(({ name }) => name === 'snapshot');
  return options.flatMap((option) => {
    const { name, value } = option;
    if (value === undefined) return [];
    if (name === 'blockdev') return blockdevDisk(option, value, options);
    if (areTemporary) return [];
    if (imageOptions.has(name)) {
      if (isVolatile(value)) return [];
      return [{ option, path: value, format: undefined, replaced: (overlay: string) => overlay }];
    }
    return name === 'drive' ? driveDisk(option, value) : [];
  });
}

function driveDisk(option: QemuOption, value: string): Disk[] {
  const keys = parseKeys(value);
  const isReadOnly = isOn(keys.get('readonly')) || isOn(keys.get('read-only'));
  if (isReadOnly || isOn(keys.get('snapshot')) || keys.get('media') === 'cdrom') return [];
  const named = ['file', 'file.filename', 'filename'].find((key) => keys.has(key));
  if (named === undefined) return [];
  const path = keys.get(named) as string;
  if (isVolatile(path) || volatileDrivers.has(keys.get('driver') ?? '')) return [];
  const format = keys.get('format') ?? keys.get('driver');
  const replaced = (overlay: string) => {
    const own = new Map(keys).set(named, overlay).set(keys.has('driver') ? 'driver' : 'format', 'qcow2');
    return formatKeys(own);
  };
  return [{ option, path, format, replaced: named === 'filename' ? undefined : replaced }];
}

/** A node over a file, or a format with its file inside. */
function blockdevDisk(option: QemuOption, value: string, options: readonly QemuOption[]): Disk[] {
  const keys = parseKeys(value, 'driver');
  const driver = keys.get('driver');
  const named = [...keys.keys()].find((key) => /(^|\.)filename$/.test(key));
  const parents = parentsOf(keys.get('node-name'), options);
  const isOnlyRead = parents.length > 0 && parents.every((each) => isOn(each.get('read-only')));
  if (isOnlyRead || isOn(keys.get('read-only'))) return [];
  if (named === undefined) return remoteDisk(option, keys);
  if (isOn(keys.get(named.replace('filename', 'read-only')))) return [];
  const path = keys.get(named) as string;
  const [parent] = parents;
  if (named === 'filename') {
    // A node of a format may be over it, whose own option then has to say qcow2.
    if (parent === undefined) return [{ option, path, format: 'raw', replaced: (overlay) => overFile(keys, overlay) }];
    const format = parent.get('driver');
    const canBeReplaced = format === 'qcow2' && parents.length === 1;
    const replaced = (overlay: string) => formatKeys(new Map(keys).set('filename', overlay));
    return [{ option, path, format, replaced: canBeReplaced ? replaced : undefined }];
  }
  const isPlain =
    named === 'file.filename' && (driver === 'raw' || driver === 'qcow2') && !keys.has('offset') && !keys.has('size');
  const replaced = (overlay: string) => formatKeys(new Map(keys).set(named, overlay).set('driver', 'qcow2'));
  return [{ option, path, format: driver, replaced: isPlain ? replaced : undefined }];
}

/** A disk on a server, which is named by all that the node says about it. */
function remoteDisk(option: QemuOption, keys: ReadonlyMap<string, string>): Disk[] {
  const drivers = [keys.get('driver'), keys.get('file.driver')];
  if (!drivers.some((driver) => remoteDrivers.has(driver ?? ''))) return [];
  const said = new Map([...keys].filter(([key]) => !ofNode.has(key)));
  return [{ option, path: formatKeys(said), format: undefined, replaced: undefined }];
}

/** The nodes that have this node as their file. */
const parentsOf = (node: string | undefined, options: readonly QemuOption[]): Map<string, string>[] =>
  options.flatMap(({ name, value }) => {
    if (node === undefined || name !== 'blockdev' || value === undefined) return [];
    const keys = parseKeys(value, 'driver');
    return keys.get('file') === node ? [keys] : [];
  });

/** Keys of a node that belong to it, not to the file below. */
const ofNode = new Set([
  'node-name',
  'read-only',
  'auto-read-only',
  'discard',
  'detect-zeroes',
  'cache.direct',
  'cache.no-flush',
]);

/** A qcow2 node of the same name as a node over a file. */
function overFile(keys: ReadonlyMap<string, string>, overlay: string): string {
  const moved = [...keys].map(([key, value]): [string, string] => [ofNode.has(key) ? key : `file.${key}`, value]);
  return formatKeys(new Map([['driver', 'qcow2'], ...moved]).set('file.filename', overlay));
}

/** @throws UsageError if two of the command lines write the same image */
export function requireOwnDisks(clones: readonly (readonly QemuOption[])[]): void {
  const writers = new Map<string, number>();
  for (const [index, options] of clones.entries()) {
    for (const { path } of writableDisks(options)) {
      const other = writers.get(path);
      if (other !== undefined && other !== index) {
        const ways = 'give each an overlay with --overlay, put {n} into its name, or make it read-only';
        throw new UsageError(`clones ${other + 1} and ${index + 1} would both write ${path}: ${ways}`);
      }
      writers.set(path, index);
    }
  }
}

/** The name of the overlay of a disk for a clone. */
export const overlayName = (path: string, disk: number, clone: number): string =>
  `${basename(path).replace(/[^A-Za-z0-9._-]/g, '_')}.disk${disk + 1}.clone${clone}.qcow2`;
