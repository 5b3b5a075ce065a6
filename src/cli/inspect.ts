/** `vmferry inspect`: shows what is in a file. */
import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { openScratch } from '../io/node/output-file.ts';
import { PageKind } from '../kernel/page-batch.ts';
import { SnapshotError } from '../read/container/qcow2-snapshots.ts';
import type { MigrationFile } from '../read/open.ts';
import { MappedRamStore } from '../store/mapped-ram-store.ts';
import { digestContent, openRamContent } from '../store/ram-content.ts';
import {
  type InspectedBlock,
  type InspectedSection,
  type Inspection,
  inspect,
  inspectionOf,
  mapPages,
} from '../tasks/inspect/inspect.ts';
import type { InspectedReturnPath } from '../tasks/inspect/return-path.ts';
import type { InspectJson } from '../tasks/json.ts';
import type { DirtyBitmap } from '../vm/flow.ts';
import { formatPlace, MigrationError } from '../vm/migration-error.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { CliCommand } from './command.ts';
import { showDevices } from './devices.ts';
import { ExitCode } from './exit-codes.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { toJson } from './json.ts';
import { warn } from './messages.ts';
import { describeContainer, describeSnapshots, libvirtText } from './print/containers.ts';
import { formatBytes, formatCount, formatHex, formatTable, painter, plural, printable } from './print/format.ts';
import { drawRows, mapCells } from './print/page-map.ts';
import { scratchOption } from './scratch.ts';
import { describeFinding } from './verify.ts';

interface InspectOptions extends InputOptions {
  sections?: boolean;
  pages?: boolean;
  hash?: boolean;
  scratch: string;
  json?: boolean;
  xml?: boolean;
  cookie?: boolean;
  devices?: boolean;
  device?: string;
}

/** sha256 of each block's final content, by idstr. */
type Hashes = Map<string, string>;

export function addInspect(program: CliCommand): CliCommand {
  return addInput(program.command('inspect'))
    .summary('show what is in a file')
    .description('Shows what is in a file: machine, RAM blocks, passes, sections, and what cannot be read.')
    .option('--sections', 'list every section with its offset and size')
    .option('--pages', 'draw a map of each RAM block')
    .option('--hash', "print the sha256 of each RAM block's final content")
    .addOption(scratchOption('where --hash keeps the RAM of a stream while it is read'))
    .option('--devices', 'list the devices and what their state says, and nothing else')
    .option('--device <NAME>', 'print the whole state of one device, and nothing else: NAME or NAME#INSTANCE')
    .option('--json', 'print everything as JSON')
    .option('--xml', 'print the domain XML of a libvirt save image, and nothing else')
    .option('--cookie', 'print the cookie of a libvirt save image, and nothing else')
    .describe({ notes, exitCodes, json, examples, rules })
    .action(async (location: string, options: InspectOptions) => {
      let isOpen = false;
      try {
        await withFile('inspect', location, options, (file) => {
          isOpen = true;
          return run(file, options);
        });
      } catch (error) {
        if (isOpen) throw error;
        showUnopened(error, options);
      }
    });
}

const notes = [
  'Page counts describe the final content: each page is counted by its last record. A truncated file is shown as far as it can be read. For a qcow2 image without #SNAPSHOT, the command lists the snapshots.',
  'The end of a device name is enough if it is unique: vga for 0000:00:02.0/vga.',
];

const exitCodes = { 1: 'the file is bad or truncated' };

const json = [
  { type: 'InspectJson', when: '--json' },
  { type: 'InspectDevicesJson', when: '--devices --json' },
  { type: 'DeviceJson', when: '--device NAME --json' },
  { type: 'InspectSnapshotsJson', when: '--json, for a qcow2 image without #SNAPSHOT' },
];

const examples = [
  'vmferry inspect guest.migration',
  'vmferry inspect --sections --pages guest.migration',
  "vmferry inspect --hash --json guest.migration | jq '.ram.blocks[] | {idstr, sha256}'",
  'vmferry inspect save.img,offset=4096',
  'vmferry inspect main --channel channel0 --channel channel1',
  'vmferry inspect --devices guest.migration',
  'vmferry inspect --device cpu#1 guest.migration',
  'vmferry inspect --device vga --json guest.migration',
  'vmferry inspect --xml guest.save',
  'vmferry inspect disk.qcow2',
  "vmferry inspect 'disk.qcow2#before-upgrade'",
  "vmferry inspect 'captures.zip#guest.migration'",
];

/** Each of these options prints one thing only. */
const alone = ['--devices', '--device', '--xml', '--cookie'];

const rules = {
  oneOf: [alone],
  needs: { '--scratch': ['--hash'] },
  excludes: {
    '--sections': alone,
    '--pages': [...alone, '--json'],
    '--hash': alone,
    '--json': ['--xml', '--cookie'],
  },
};

/** Prints what can be described of a file without a readable stream. */
function showUnopened(error: unknown, options: InspectOptions): void {
  const { devices, device, xml, cookie, hash, sections, pages } = options;
  const wantsOne = devices === true || device !== undefined || xml === true || cookie === true;
  const wantsMore = hash === true || sections === true || pages === true;
  if (error instanceof SnapshotError && error.wanted === undefined && !wantsOne && !wantsMore) {
    process.stdout.write(describeSnapshots(error, options.json === true));
  } else if (error instanceof MigrationError && options.json === true && !wantsOne) {
    printJson(inspectionOf(error), new Map());
    process.exitCode = ExitCode.badInput;
  } else {
    throw error;
  }
}

async function run(file: MigrationFile, options: InspectOptions): Promise<void> {
  for (const what of ['xml', 'cookie'] as const) {
    if (options[what] !== true) continue;
    process.stdout.write(`${libvirtText(file, what).trimEnd()}\n`);
    return;
  }
  if (options.devices === true || options.device !== undefined) return showDevices(file, options);
  const makeScratch = () => openScratch(realpathSync(options.scratch));
  // A file that is not a page store becomes one while it is read.
  const needsStore = options.hash === true && !(file.isSeekable && file.format === 'mapped-ram');
  const store = needsStore ? new MappedRamStore(makeScratch(), file.pageSlots) : undefined;
  try {
    const pages = options.pages === true;
    const { inspection, states } = await inspect(file, store === undefined ? { pages } : { pages, sink: store });
    const sound = inspection.error === undefined && !inspection.findings.some(({ severity }) => severity === 'error');
    const readable =
      sound && !inspection.findings.some(({ code }) => code === 'unsupported' || code === 'missing-channels');
    const ignored = new Set(inspection.ram.blocks.filter((block) => block.ignored).map(({ idstr }) => idstr));
    const hashes = options.hash === true && readable ? await hashAll(file, store, makeScratch, ignored) : new Map();
    if (hashes.size > 0) warnOfAbsentPages(inspection.ram.blocks);
    if (options.hash === true && !readable) warn('no hashes, because not all content can be read');
    if (options.json === true) {
      printJson(inspection, hashes);
    } else if (inspection.error?.reason === 'another-kind') {
      throw MigrationError.from(inspection.error);
    } else {
      const maps = pages
        ? states.map(({ block, states }) => ({ block, cells: mapPages(block, states, mapCells) }))
        : [];
      const drawn = maps.map(({ block, cells }) => `\n${printable(block.idstr)}\n${drawMap(cells, inspection.format)}`);
      process.stdout.write(`${[describe(inspection, options, hashes), ...drawn].join('\n')}\n`);
    }
    process.exitCode =
      inspection.complete && sound && (readable || options.hash !== true) ? ExitCode.ok : ExitCode.badInput;
  } finally {
    await store?.close();
  }
}

function warnOfAbsentPages(blocks: InspectedBlock[]): void {
  for (const { idstr, pages, ignored } of blocks) {
    if (pages.absent === 0 || ignored === true) continue;
    warn(`${plural(pages.absent, 'page')} of ${idstr} were never sent, so they are hashed as zeros`);
  }
}

async function hashAll(
  file: MigrationFile,
  store: RamReader | undefined,
  makeScratch: () => ReturnType<typeof openScratch>,
  ignored: ReadonlySet<string>,
): Promise<Hashes> {
  const ram = store ?? (await openRamContent(file, { makeScratch, acceptIgnored: true }));
  try {
    const hashes: Hashes = new Map();
    for (const block of ram.blocks) {
      if (ignored.has(block.idstr)) continue;
      const hash = createHash('sha256');
      await digestContent(ram, block, hash);
      hashes.set(block.idstr, hash.digest('hex'));
    }
    return hashes;
  } finally {
    if (store === undefined) await ram.close();
  }
}

function printJson(inspection: Inspection, hashes: Hashes): void {
  const blocks = inspection.ram.blocks.map((block) => {
    const sha256 = hashes.get(block.idstr);
    return sha256 === undefined ? block : { ...block, sha256 };
  });
  process.stdout.write(toJson<InspectJson>({ ...inspection, ram: { ...inspection.ram, blocks } }));
}

function describe(inspection: Inspection, options: InspectOptions, hashes: Hashes): string {
  const paint = painter(process.stdout);
  const { format, version, machine, capabilities, uuid, ram, length, description } = inspection;
  const kind = format === 'stream' ? 'migration stream' : 'mapped-ram file';
  const state = inspection.complete ? paint('green', 'complete') : paint('red', 'not complete');
  const facts: [string, string][] = [
    ...inspection.containers.flatMap(describeContainer),
    ['format', version === undefined ? 'unknown' : [`QEMU ${kind}`, `version ${version}`, state].join(', ')],
    [
      'length',
      length === undefined
        ? 'unknown (the end was not reached)'
        : `${formatBytes(length)} (${formatCount(length)} bytes)`,
    ],
    ['machine', machine === undefined ? 'not stated' : printable(machine)],
    ['capabilities', capabilities.length === 0 ? 'none that change the format' : printable(capabilities.join(', '))],
  ];
  if (uuid !== undefined) facts.push(['uuid', uuid]);
  if (inspection.changes !== undefined) {
    const { base, content } = inspection.changes;
    facts.push(['changes', `only the pages that changed from ${base} to ${content}: merge it with its base`]);
  }
  const pageSize = ram.blocks[0]?.pageSize;
  facts.push([
    'RAM',
    [
      `${formatBytes(ram.totalBytes)} in ${plural(ram.blocks.length, 'block')}`,
      pageSize === undefined
        ? ''
        : `, pages of ${formatBytes(pageSize)}${ram.pageSizeFrom === 'assumed' ? ' (assumed)' : ''}`,
      ram.passes === 0 || ram.passes === undefined ? '' : `, ${plural(ram.passes, 'pass').replace(/passs$/, 'passes')}`,
    ].join(''),
  ]);
  const records = Object.entries(ram.records).filter(([, { records }]) => records > 0);
  if (records.length > 0) {
    facts.push([
      'records',
      records.map(([name, { records, bytes }]) => `${formatCount(records)} ${name} (${formatBytes(bytes)})`).join(', '),
    ]);
  }
  if (ram.multifdSyncs > 0 || inspection.multifd !== undefined) facts.push(['multifd', describeMultifd(inspection)]);
  facts.push(['sections', describeSections(inspection)]);
  if (inspection.commands.length > 0) facts.push(['commands', describeCommands(inspection)]);
  facts.push([
    'description',
    description === undefined
      ? 'none'
      : `${formatBytes(description.length)} of JSON, ${plural(description.devices, 'device')}`,
  ]);
  const width = Math.max(...facts.map(([name]) => name.length));
  const lines = [paint('bold', printable(inspection.source))];
  for (const [name, text] of facts) lines.push(`  ${paint('dim', name.padEnd(width))}  ${text}`);
  lines.push('', blockTable(ram.blocks, format), ...hashLines(ram.blocks, hashes));
  if (inspection.multifd !== undefined) lines.push('', channelTable(inspection.multifd));
  if (inspection.dirtyBitmaps.length > 0) lines.push('', dirtyBitmapTable(inspection.dirtyBitmaps));
  for (const path of inspection.returnPaths) lines.push('', ...describeReturnPath(path));
  if (options.sections === true) lines.push('', sectionTable(inspection.sections));
  if (inspection.findings.length > 0)
    lines.push('', ...inspection.findings.map((finding) => describeFinding(finding, inspection.source, paint)));
  if (inspection.error !== undefined) {
    const { code, message, place } = inspection.error;
    lines.push('', `${paint('red', 'error')} ${code}: ${printable(message)} in ${printable(formatPlace(place))}`);
  }
  return lines.join('\n');
}

function describeMultifd({ ram, multifd }: Inspection): string {
  const syncs = plural(ram.multifdSyncs, 'sync');
  if (multifd === undefined) return `${syncs}, channels not given`;
  const { channels, compression } = multifd;
  const how = compression === undefined ? '' : compression === 'none' ? ', not compressed' : `, ${compression}`;
  return `${plural(channels.length, 'channel')}, ${syncs}${how}`;
}

function channelTable({ channels }: NonNullable<Inspection['multifd']>): string {
  const rows = [['channel', 'bytes', 'packets', 'normal', 'zero', 'file']];
  for (const { id, bytes, packets, normalPages, zeroPages, source } of channels) {
    rows.push([String(id), ...[bytes, packets, normalPages, zeroPages].map(formatCount), printable(source)]);
  }
  return formatTable(rows, ['right', 'right', 'right', 'right', 'right', 'left']);
}

function describeSections({ sections, sectionsOmitted }: Inspection): string {
  const devices = sections.filter(({ kind }) => kind === 'full');
  const bytes = devices.reduce((sum, { length }) => sum + length, 0);
  const iterables = [...new Set(sections.filter(({ kind }) => kind !== 'full').map(({ name }) => name))];
  const omitted = sectionsOmitted > 0 ? ` (and ${formatCount(sectionsOmitted)} not listed)` : '';
  return `${plural(devices.length, 'device')} (${formatBytes(bytes)}), iterable: ${printable(iterables.join(', ')) || 'none'}${omitted}`;
}

function describeCommands({ commands }: Inspection): string {
  const shown = commands.slice(0, 8).map(({ name }) => name);
  return shown.join(', ') + (commands.length > shown.length ? `, … (${formatCount(commands.length)})` : '');
}

function dirtyBitmapTable(bitmaps: DirtyBitmap[]): string {
  const rows = [['dirty bitmap', 'node', 'granularity', 'of disk', 'dirty', 'state']];
  for (const { node, name, granularity, coveredBytes, dirtyBits, enabled, persistent, complete } of bitmaps) {
    const state = [enabled ? 'enabled' : 'disabled', ...(persistent ? ['persistent'] : [])];
    rows.push([
      printable(name),
      printable(node),
      formatBytes(granularity),
      formatBytes(coveredBytes),
      formatBytes(Math.min(dirtyBits * granularity, coveredBytes)),
      [...state, ...(complete ? [] : ['not complete'])].join(', '),
    ]);
  }
  return formatTable(rows, ['left', 'left', 'right', 'right', 'right', 'left']);
}

function describeReturnPath(path: InspectedReturnPath): string[] {
  const counts = Object.entries(path.counts).map(([name, count]) => `${formatCount(count)} ${name}`);
  const lines = [`return path ${printable(path.source)}, ${formatBytes(path.length)}`];
  lines.push(`  messages  ${counts.join(', ') || 'none'}`);
  if (path.requestedBytes > 0) lines.push(`  requests  ${formatBytes(path.requestedBytes)} of RAM`);
  for (const { block, received } of path.messages) {
    if (received !== undefined) lines.push(`  received  ${plural(received, 'page')} of ${printable(block ?? '')}`);
  }
  lines.push(
    `  SHUT      ${path.shut === undefined ? 'never received' : path.shut === 0 ? 'ok' : `status ${path.shut}`}`,
  );
  return lines;
}

function blockTable(blocks: InspectedBlock[], format: Inspection['format']): string {
  const hasCompressed = blocks.some(({ pages }) => pages.compressed > 0);
  const rows = [['block', 'size', 'zero', 'normal', 'xbzrle', ...(hasCompressed ? ['compressed'] : []), 'absent']];
  for (const { idstr, usedLength, pages, ignored } of blocks) {
    rows.push([
      printable(idstr),
      formatBytes(usedLength),
      formatCount(pages.zero),
      formatCount(pages.normal),
      formatCount(pages.xbzrle),
      ...(hasCompressed ? [formatCount(pages.compressed)] : []),
      // A mapped-ram bitmap has one bit per page: a page without data is zero or was never sent.
      ignored === true ? 'ignored' : format === 'mapped-ram' ? '-' : formatCount(pages.absent),
    ]);
  }
  return formatTable(rows, ['left', ...new Array<'right'>((rows[0] as string[]).length - 1).fill('right')]);
}

function hashLines(blocks: InspectedBlock[], hashes: Hashes): string[] {
  if (hashes.size === 0) return [];
  const rows = blocks.map(({ idstr }) => [printable(idstr), hashes.get(idstr) ?? '']);
  return ['', formatTable([['block', 'sha256'], ...rows], ['left', 'left'])];
}

/** One row per section; a run of parts of the same iterable is one row. */
function sectionTable(sections: InspectedSection[]): string {
  const hasSources = sections.some(({ source }) => source !== undefined);
  const rows = [['offset', 'length', 'kind', 'id', 'name', 'instance', 'version', ...(hasSources ? ['in'] : [])]];
  for (let i = 0; i < sections.length; ) {
    const first = sections[i] as InspectedSection;
    let end = i + 1;
    let length = first.length;
    while (first.kind === 'part' && sections[end]?.kind === 'part' && isSameIterable(first, sections[end])) {
      length += (sections[end++] as InspectedSection).length;
    }
    const kind = end - i > 1 ? `${formatCount(end - i)} parts` : first.kind;
    rows.push([
      formatHex(first.offset),
      formatCount(length),
      first.boundary === 'guess' ? `${kind}?` : kind,
      String(first.id),
      printable(first.name),
      String(first.instanceId),
      String(first.versionId),
      ...(hasSources ? [printable(first.source ?? '')] : []),
    ]);
    i = end;
  }
  return formatTable(rows, [
    'right',
    'right',
    'left',
    'right',
    'left',
    'right',
    'right',
    ...(hasSources ? ['left' as const] : []),
  ]);
}

function isSameIterable(a: InspectedSection, b: InspectedSection | undefined): boolean {
  return a.id === b?.id && a.source === b.source;
}

/** A map of memory. Each character is a range of pages and shows what most of them are. */
function drawMap(cells: number[][], format: Inspection['format']): string {
  const paint = painter(process.stdout);
  const pagesPerCell = (cells[0] ?? []).reduce((sum, n) => sum + n, 0);
  const empty = format === 'mapped-ram' ? '·' : ' ';
  const draw = (kinds: number[]) => {
    const sum = kinds.reduce((total, n) => total + n, 0);
    const delta = kinds[PageKind.delta] ?? 0;
    const data = (kinds[PageKind.data] ?? 0) + (kinds[PageKind.compressed] ?? 0) + delta;
    if (delta > 0 && delta * 2 >= data) return paint('yellow', 'x');
    if (data * 2 >= sum && data > 0) return paint('blue', '█');
    if (data > 0) return paint('blue', '▒');
    return (kinds[PageKind.absent] ?? 0) * 2 > sum ? empty : paint('dim', '·');
  };
  const blank = format === 'mapped-ram' ? '' : ', blank absent';
  return `${drawRows(cells.map(draw))}\n  about ${plural(pagesPerCell, 'page')} per character: · zero, █ data, ▒ some data, x XBZRLE${blank}`;
}
