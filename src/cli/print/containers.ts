/** How `inspect` describes the file around a stream: compression, libvirt save images, qcow2 images and their snapshots, zip archives. */
import type { SnapshotError } from '../../read/container/qcow2-snapshots.ts';
import type { MigrationFile } from '../../read/open.ts';
import type { InspectedContainer } from '../../tasks/inspect/inspect.ts';
import { reportSnapshot } from '../../tasks/inspect/inspect.ts';
import type { InspectSnapshotsJson } from '../../tasks/json.ts';
import { UsageError } from '../exit-codes.ts';
import { toJson } from '../json.ts';
import { formatBytes, formatTable, painter, printable } from './format.ts';

/** A container as facts: names and texts. */
export function describeContainer(container: InspectedContainer): [string, string][] {
  if (container.kind === 'compressed') return [['compressed', `with ${container.format}`]];
  if (container.kind === 'qcow2') {
    const { id, name, date, vmClock, vmStateSize, diskSize } = container;
    const when = `${formatDate(date)}, guest's clock ${formatClock(vmClock)}`;
    return [
      ['container', `snapshot "${printable(name)}" (id ${printable(id)}) of a qcow2 image`],
      ['snapshot', `${when}, ${formatBytes(vmStateSize)} of VM state, disk of ${formatBytes(diskSize)}`],
    ];
  }
  if (container.kind === 'zip') {
    const { member, method, size } = container;
    return [['container', `member "${printable(member)}" of a zip archive, ${method}, ${formatBytes(size)}`]];
  }
  const { version, isFinished, format, wasRunning, byteOrder, xmlLength, cookieLength, domain } = container;
  const facts = [
    'libvirt save image',
    isFinished ? undefined : 'never finished',
    `version ${version}`,
    format,
    wasRunning ? 'guest was running' : 'guest was paused',
    byteOrder === 'big' ? 'big-endian' : undefined,
  ];
  const { name, type, uuid } = domain;
  const cookie = cookieLength === undefined ? 'no cookie' : `cookie of ${formatBytes(cookieLength)}`;
  return [
    ['container', facts.filter((fact) => fact !== undefined).join(', ')],
    ['domain', printable([name ?? 'no name', type, uuid].filter((fact) => fact !== undefined).join(', '))],
    ['XML', `${formatBytes(xmlLength)}, ${cookie}`],
  ];
}

/** The XML or the cookie of a libvirt save image. */
export function libvirtText(file: MigrationFile, what: 'xml' | 'cookie'): string {
  const image = file.containers.find((container) => container.kind === 'libvirt');
  if (image === undefined) throw new UsageError(`--${what}: ${file.source.name} is not a libvirt save image`);
  const text = image.data[what];
  if (text === undefined) throw new UsageError(`--${what}: ${file.source.name} has none`);
  return text;
}

/** Lists the snapshots of a qcow2 image when no snapshot is named. */
export function describeSnapshots({ image }: SnapshotError, isJson: boolean): string {
  const { header, snapshots } = image;
  const { version, clusterBits, diskSize, encryption, compression, isDirty, isCorrupt } = header;
  const reported = snapshots.map(reportSnapshot);
  if (isJson) {
    const facts = { version, clusterSize: 2 ** clusterBits, diskSize, encryption, compression, isDirty, isCorrupt };
    return toJson<InspectSnapshotsJson>({ source: image.name, format: 'qcow2', ...facts, snapshots: reported });
  }
  const paint = painter(process.stdout);
  const facts = [
    `qcow2 image, version ${version}`,
    `disk of ${formatBytes(diskSize)}`,
    `clusters of ${formatBytes(2 ** clusterBits)}`,
    encryption === 'none' ? undefined : `encrypted (${encryption})`,
    isDirty ? 'marked dirty' : undefined,
    isCorrupt ? 'marked corrupt' : undefined,
  ];
  const lines = [
    paint('bold', printable(image.name)),
    `  ${facts.filter((fact) => fact !== undefined).join(', ')}`,
    '',
  ];
  if (reported.length === 0) return `${[...lines, '  no snapshots'].join('\n')}\n`;
  const rows = reported.map(({ id, name, date, vmClock, vmStateSize, diskSize: disk }) => [
    printable(id),
    printable(name),
    formatDate(date),
    formatClock(vmClock),
    vmStateSize === 0 ? 'none' : formatBytes(vmStateSize),
    formatBytes(disk),
  ]);
  const head = ['id', 'name', 'date', 'VM clock', 'VM state', 'disk'];
  lines.push(formatTable([head, ...rows], ['right', 'left', 'left', 'right', 'right', 'right']));
  const first = snapshots.find(({ vmStateSize }) => vmStateSize > 0);
  if (first !== undefined)
    lines.push('', `  To inspect one: vmferry inspect '${printable(`${image.name}#${first.name}`)}'`);
  return `${lines.join('\n')}\n`;
}

const formatDate = (seconds: number) => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');

/** Seconds as hours, minutes and seconds. */
function formatClock(seconds: number): string {
  const pad = (value: number) => String(Math.floor(value)).padStart(2, '0');
  return `${pad(seconds / 3600)}:${pad((seconds / 60) % 60)}:${pad(seconds % 60)}.${String(Math.floor((seconds * 1000) % 1000)).padStart(3, '0')}`;
}
