/** inspect: lists the content of a file, as far as it is readable. */
import type { Abortable } from '../../io/abort.ts';
import { originOf } from '../../io/byte-source.ts';
import type { Compression } from '../../io/compression.ts';
import { PageKind } from '../../kernel/page-batch.ts';
import type { ChannelReport } from '../../read/channels.ts';
import type { Container } from '../../read/container/container.ts';
import { type Domain, findDomain, type LibvirtHeader } from '../../read/container/libvirt-header.ts';
import type { Qcow2Snapshot } from '../../read/container/qcow2-header.ts';
import type { CountedFinding } from '../../read/finding-log.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { listParts } from '../../read/parts.ts';
import { type FlowSink, onlyPages, readFlow } from '../../store/flow-sink.ts';
import type {
  Boundary,
  ChangesIds,
  Description,
  DirtyBitmap,
  FlowItem,
  PageSizeFrom,
  SectionKind,
} from '../../vm/flow.ts';
import { type Finding, incompleteCodes, type MigrationError } from '../../vm/migration-error.ts';
import { discardedState, type PageStates } from '../../vm/page-states.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import { FlowStats, type PageCounts, type RecordCount } from './flow-stats.ts';
import { type InspectedReturnPath, type ReturnFindings, readReturnPath } from './return-path.ts';

/** A RAM block and its pages in the file. */
export interface InspectedBlock {
  idstr: string;
  /** Bytes. */
  usedLength: number;
  /** Target page size, bytes. */
  pageSize: number;
  /** Pages by the kind of their last record, which decides their final content. */
  pages: PageCounts;
  /** Host page size in bytes, if the stream states it. */
  hostPageSize?: number;
  /** Shared memory that the migration left out (x-ignore-shared): its content is not in the file. */
  ignored?: true;
  /** Guest-physical address in hex, if the stream states it. */
  guestAddress?: string;
  /** Absolute file offsets, in a mapped-ram file. */
  bitmapOffset?: number;
  pagesOffset?: number;
}

/** A section of the stream. */
export interface InspectedSection {
  name: string;
  instanceId: number;
  versionId: number;
  kind: SectionKind;
  id: number;
  /** Byte offset of the section in the file, and bytes up to the end of its footer. */
  offset: number;
  length: number;
  packaged: boolean;
  /** Its source, if that is not the file itself. */
  source?: string;
  /** How the end of a device section was determined. */
  boundary?: Boundary;
}

/** A container around a stream. Sizes in bytes. */
export type InspectedContainer =
  | { kind: 'compressed'; format: Compression }
  | ({
      kind: 'libvirt';
      xmlLength: number;
      /** Bytes of the cookie, if there is one. */
      cookieLength: number | undefined;
      domain: Domain;
    } & LibvirtHeader)
  | ({ kind: 'qcow2' } & InspectedSnapshot)
  | { kind: 'zip'; member: string; method: 'stored' | 'deflated'; size: number; compressedSize: number };

/** An internal snapshot of a qcow2 image. Sizes in bytes. */
export interface InspectedSnapshot {
  id: string;
  name: string;
  /** Creation time by the host's clock, in seconds since 1970. */
  date: number;
  /** The guest's clock, in seconds. */
  vmClock: number;
  /** 0 for a snapshot of the disk alone. */
  vmStateSize: number;
  diskSize: number;
}

/** The content of a file. All sizes and offsets in bytes. */
export interface Inspection {
  source: string;
  /** Containers around the stream, from the outside in. */
  containers: InspectedContainer[];
  format: 'stream' | 'mapped-ram';
  /** Version of the stream format, if the header was readable. */
  version: number | undefined;
  /** The machine type, if the stream states it. */
  machine: string | undefined;
  /** Guest UUID, 32 hex digits, if the stream states it. */
  uuid: string | undefined;
  /** Whether the file has only the pages that changed since a base. */
  changes?: ChangesIds;
  capabilities: string[];
  /** Whether the stream was read to its end, and nothing shows that memory is missing. */
  complete: boolean;
  ram: {
    totalBytes: number;
    /** How the target page size is known, if there are blocks. */
    pageSizeFrom: PageSizeFrom | undefined;
    /**
     * Passes over the blocks; 0 if no page was sent one by one (mapped-ram). Absent if the order of pages is meaningless: with
     * compressed pages, multifd channels, and in a background snapshot.
     */
    passes: number | undefined;
    blocks: InspectedBlock[];
    /** Page records in all passes, and their bytes in the file. */
    records: { zero: RecordCount; normal: RecordCount; xbzrle: RecordCount; compressed: RecordCount };
    multifdSyncs: number;
  };
  /** The given channels by number, if any were given. */
  multifd: { compression: string | undefined; channels: ChannelReport[] } | undefined;
  sections: InspectedSection[];
  /** Sections beyond the first 100,000. */
  sectionsOmitted: number;
  commands: { name: string; offset: number; source?: string }[];
  description: { offset: number; length: number; pageSize: number | undefined; devices: number } | undefined;
  /** Bytes of the stream, from its header to its end, if the end was reached. */
  length: number | undefined;
  /** Dirty bitmaps of disks (capability dirty-bitmaps). */
  dirtyBitmaps: DirtyBitmap[];
  /** The destination's messages, for each given return path. */
  returnPaths: InspectedReturnPath[];
  findings: CountedFinding[];
  /** The error that stopped the reading, if one did. */
  error: Finding | undefined;
}

/** What else is reported while a file is inspected. */
export interface InspectOptions extends Abortable {
  /** Remember each page's state, for {@link InspectResult.states}. */
  pages?: boolean;
  /** Takes blocks and pages as they are read, for a source that can be read only once. A MigrationError of it is `error`. */
  sink?: FlowSink;
  /** Called for each item of the Flow after it was counted. Without `sink`, pages may lack data, see `FlowOptions`. */
  watch?: (item: FlowItem) => void;
}

/** The result of `inspect`. */
export interface InspectResult {
  inspection: Inspection;
  /** Per block: `PageKind` of each page's last record. In a mapped-ram file pages without data are not set. */
  states: { block: RamBlock; states: PageStates }[];
}

/**
 * Reads a whole file; of a mapped-ram file, everything except the pages. For a truncated file, the result has
 * everything before the end, and `error`.
 */
export async function inspect(file: MigrationFile, options: InspectOptions = {}): Promise<InspectResult> {
  return whileAllowed(options, [file], () => inspectFile(file, options));
}

async function inspectFile(file: MigrationFile, options: InspectOptions = {}): Promise<InspectResult> {
  const stats = new FlowStats(originOf(file.source), options.pages === true);
  const sinks: FlowSink[] = [stats];
  if (options.watch !== undefined) sinks.push({ take: options.watch });
  if (options.sink !== undefined) sinks.push(onlyPages(options.sink));
  const error = await readFlow(file, sinks, { read: options.sink === undefined ? 'bitmaps' : 'pages' });
  if (error === undefined) stats.noteMissingChannels(file.channels);
  return { inspection: await reportInspection(file, stats, error), states: stats.blocks };
}

/** Describes a file by the statistics of its Flow, and by its return paths, which it reads. `error` ended the Flow early. */
export async function reportInspection(
  file: MigrationFile,
  stats: FlowStats,
  error: Finding | undefined,
  others: readonly ReturnFindings[] = [],
): Promise<Inspection> {
  const returnPaths: InspectedReturnPath[] = [];
  for (const source of file.parts.returnPath) returnPaths.push(await readReturnPath(file, source, stats, others));
  return { ...report(file, stats, error), returnPaths };
}

/** The result for a file that could not be opened. */
export function inspectionOf(error: MigrationError): Inspection {
  const { source, coordinate } = error.place;
  const nothing = new FlowStats({ source, coordinate });
  const opened: Opened = {
    source: { name: source },
    offset: 0,
    containers: [],
    parts: listParts({}),
    channels: { compression: undefined, list: [], uuid: undefined, numbers: { isReliable: false, hasGaps: false } },
  };
  return { ...report(opened, nothing, error.toFinding()), returnPaths: [] };
}

/** Facts about a file that are known before it is read. */
type Opened = { source: { name: string } } & Pick<MigrationFile, 'offset' | 'containers' | 'parts' | 'channels'>;

function report(file: Opened, stats: FlowStats, error: Finding | undefined): Omit<Inspection, 'returnPaths'> {
  const { configuration, description } = stats;
  const { channels } = file;
  const findings = stats.findings.list();
  const hasChannels = file.parts.channels.length > 0;
  const isUnordered = hasChannels || stats.countRecords(PageKind.compressed) > 0 || stats.findings.has('no-ram-end');
  const records = (kind: PageKind) => stats.records[kind] as RecordCount;
  return {
    source: file.source.name,
    containers: file.containers.map(reportContainer),
    format: stats.format,
    version: stats.version,
    machine: configuration?.machine,
    uuid: configuration?.uuid,
    ...(configuration?.changes === undefined ? {} : { changes: configuration.changes }),
    capabilities: configuration?.capabilities ?? [],
    complete: error === undefined && stats.eof && !findings.some(({ code }) => incompleteCodes.has(code)),
    ram: {
      totalBytes: stats.totalBytes,
      pageSizeFrom: stats.pageSizeFrom,
      passes: isUnordered ? undefined : stats.passes,
      blocks: stats.blocks.map((block) => reportBlock(block.block, stats.countPages(block), stats.isIgnored(block))),
      records: {
        zero: records(PageKind.zero),
        normal: records(PageKind.data),
        xbzrle: records(PageKind.delta),
        compressed: records(PageKind.compressed),
      },
      multifdSyncs: stats.syncs,
    },
    multifd: hasChannels ? { compression: channels.compression, channels: channels.list } : undefined,
    sections: stats.sections.map(
      ({ name, instanceId, versionId, kind, id, offset, length, packaged, boundary, source }) => ({
        name,
        instanceId,
        versionId,
        kind,
        id,
        offset,
        length,
        packaged,
        ...(boundary === undefined ? {} : { boundary }),
        ...(source === undefined ? {} : { source }),
      }),
    ),
    sectionsOmitted: stats.sectionsOmitted,
    commands: stats.commands.map(({ code: _, ...command }) => command),
    description: description === undefined ? undefined : reportDescription(description),
    length: stats.end === undefined ? undefined : stats.end - file.offset,
    dirtyBitmaps: [...stats.dirtyBitmaps.values()],
    findings,
    error,
  };
}

function reportContainer(container: Container): InspectedContainer {
  if (container.kind === 'compressed') return container;
  if (container.kind === 'qcow2') return { kind: 'qcow2', ...reportSnapshot(container.snapshot) };
  if (container.kind === 'zip') {
    const { name, method, size, compressedSize } = container.member;
    return { kind: 'zip', member: name, method: method === 'deflated' ? method : 'stored', size, compressedSize };
  }
  const { header, data } = container;
  const length = (text: string) => new TextEncoder().encode(text).length;
  const cookieLength = data.cookie === undefined ? undefined : length(data.cookie);
  return { kind: 'libvirt', ...header, xmlLength: length(data.xml), cookieLength, domain: findDomain(data.xml) };
}

/** A snapshot as JSON. */
export function reportSnapshot(snapshot: Qcow2Snapshot): InspectedSnapshot {
  const { id, name, dateSeconds, dateNanoseconds, vmClock, vmStateSize, diskSize } = snapshot;
  return { id, name, date: dateSeconds + dateNanoseconds / 1e9, vmClock: Number(vmClock) / 1e9, vmStateSize, diskSize };
}

function reportBlock(block: RamBlock, pages: PageCounts, isIgnored: boolean): InspectedBlock {
  const { idstr, usedLength, pageSize, hostPageSize, guestAddress, mapped } = block;
  return {
    idstr,
    usedLength,
    pageSize,
    pages,
    ...(isIgnored ? { ignored: true } : {}),
    ...(hostPageSize === undefined ? {} : { hostPageSize }),
    ...(guestAddress === undefined ? {} : { guestAddress: `0x${guestAddress.toString(16)}` }),
    ...(mapped === undefined ? {} : { bitmapOffset: mapped.bitmapOffset, pagesOffset: mapped.pagesOffset }),
  };
}

function reportDescription({ offset, length, parsed }: Description): NonNullable<Inspection['description']> {
  return { offset, length, pageSize: parsed?.pageSize, devices: parsed?.devices.length ?? 0 };
}

/** Counts the pages of a block by `PageKind` in `cells` equal ranges, for a map of memory. */
export function mapPages(block: RamBlock, states: PageStates, cells: number): number[][] {
  const pages = pageCount(block);
  const count = Math.min(cells, pages);
  return Array.from({ length: count }, (_, cell) => {
    const from = Math.floor((cell * pages) / count);
    const end = Math.floor(((cell + 1) * pages) / count);
    const kinds = new Array<number>(Object.keys(PageKind).length).fill(0);
    for (let page = states.nextSet(from, end); page < end; page = states.nextSet(page + 1, end)) {
      const kind = states.get(page);
      if (kind !== discardedState) kinds[kind] = (kinds[kind] as number) + 1;
    }
    kinds[PageKind.absent] = end - from - kinds.reduce((sum, n) => sum + n, 0);
    return kinds;
  });
}
