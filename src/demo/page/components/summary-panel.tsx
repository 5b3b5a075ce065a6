/** The Summary panel: facts about the file, and its RAM blocks. */
import type { InspectedContainer } from '../../../tasks/inspect/inspect.ts';
import type { InspectedReturnPath } from '../../../tasks/inspect/return-path.ts';
import type { Finding } from '../../../vm/migration-error.ts';
import { formatBytes, formatCount, formatHex, plural, printable } from '../../../words/format.ts';
import type { BlockView, OpenedFile } from '../../protocol.ts';
import { layerClasses, swatch } from '../map-colours.ts';
import { useMachine } from './machine-context.ts';
import { useMore } from './more.tsx';

export function SummaryPanel() {
  const { file } = useMachine();
  return (
    <section class="panel" id="summary" aria-labelledby="summary-title">
      <h3 id="summary-title">Summary</h3>
      {file.inspection.error === undefined ? null : <BrokenOff error={file.inspection.error} />}
      <dl class="facts" data-test="facts">
        {factsOf(file).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <BlockTable />
    </section>
  );
}

/** The error that ended the reading. */
function BrokenOff({ error: { code, message, place } }: { error: Finding }) {
  return (
    <div class="failure">
      <p>
        <b class="severity-error">error</b> <code>{code}</code>: {printable(message)} at {formatHex(place.offset)}
      </p>
      <p>
        The page shows what could be read up to there. <a href="#findings">Findings</a> explains the cause and what to
        do.
      </p>
    </div>
  );
}

function factsOf({ inspection, size, parts }: OpenedFile): [string, string][] {
  const { format, version, complete, machine, uuid, changes, capabilities, ram } = inspection;
  const { sections, commands, description } = inspection;
  const kind = format === 'mapped-ram' ? 'mapped-ram file' : 'QEMU migration stream';
  const pageSizes = [...new Set(ram.blocks.map(({ pageSize }) => formatBytes(pageSize)))].join(', ');
  const assumed = ram.pageSizeFrom === 'assumed' ? ' (assumed)' : '';
  const pagesOf = pageSizes === '' ? '' : `, pages of ${pageSizes}${assumed}`;
  const passes =
    ram.passes === undefined || ram.passes === 0 ? '' : `, ${plural(ram.passes, 'pass').replace(/ss(s)$/, 'sses')}`;
  const devices = sections.filter(({ kind: sectionKind }) => sectionKind === 'full');
  const deviceBytes = devices.reduce((sum, { length }) => sum + length, 0);
  const iterables = [...new Set(sections.filter(({ kind: each }) => each !== 'full').map(({ name }) => name))];
  const records = Object.entries(ram.records).filter(([, each]) => each.records > 0);
  const facts: [string, string | undefined][] = [
    ['Found in', inspection.containers.map(describeContainer).join(', ') || undefined],
    [
      'Format',
      `${kind}${version === undefined ? '' : `, version ${version}`}, ${complete ? 'complete' : 'not complete'}`,
    ],
    ['Length', describeLength(inspection.length, size)],
    ['Machine', machine === undefined ? 'not stated' : printable(machine)],
    ['UUID', uuid],
    [
      'Changes',
      changes === undefined ? undefined : `changes from ${changes.base} to ${changes.content} only, not a whole VM`,
    ],
    ['Capabilities', capabilities.map(printable).join(', ') || 'none that change the format'],
    ['RAM', `${formatBytes(ram.totalBytes)} in ${plural(ram.blocks.length, 'block')}${pagesOf}${passes}`],
    [
      'Records',
      records.map(([name, each]) => `${formatCount(each.records)} ${name} (${formatBytes(each.bytes)})`).join(', ') ||
        undefined,
    ],
    ['Recovery of', listNames(parts.resumeOf)],
    ['Preempt', listNames(parts.preempt)],
    ['Multifd', describeMultifd(inspection)],
    ['Channels', listNames(parts.channels)],
    ['Return path', inspection.returnPaths.map(describeReturnPath).join('; ') || undefined],
    ['Dirty bitmaps', inspection.dirtyBitmaps.map(describeDirtyBitmap).join('; ') || undefined],
    [
      'Sections',
      `${plural(devices.length, 'device')} (${formatBytes(deviceBytes)}), iterable: ${printable(iterables.join(', ')) || 'none'}`,
    ],
    ['Commands', describeCommands(commands) || undefined],
    [
      'Description',
      description === undefined
        ? 'none'
        : `${formatBytes(description.length)} of JSON, ${plural(description.devices, 'device')}`,
    ],
  ];
  return facts.filter((fact): fact is [string, string] => fact[1] !== undefined);
}

/** Commands that are listed at most. */
const listedCommands = 8;

function describeCommands(commands: OpenedFile['inspection']['commands']): string {
  const shown = commands.slice(0, listedCommands).map(({ name }) => name);
  return shown.join(', ') + (commands.length > shown.length ? `, … (${formatCount(commands.length)})` : '');
}

function describeMultifd({ ram, multifd }: OpenedFile['inspection']): string | undefined {
  if (ram.multifdSyncs === 0 && multifd === undefined) return undefined;
  const syncs = plural(ram.multifdSyncs, 'sync');
  if (multifd === undefined) return `${syncs}, channels missing`;
  const { channels, compression } = multifd;
  const how = compression === undefined ? '' : compression === 'none' ? ', uncompressed' : `, ${compression}`;
  return `${plural(channels.length, 'channel')}, ${syncs}${how}`;
}

function describeReturnPath({ source, counts, shut }: InspectedReturnPath): string {
  const messages = Object.entries(counts).map(([name, count]) => `${formatCount(count)} ${name}`);
  const end = shut === undefined ? 'no SHUT' : shut === 0 ? 'SHUT is ok' : `SHUT has status ${shut}`;
  return `${printable(source)}: ${messages.join(', ') || 'no messages'}; ${end}`;
}

function describeDirtyBitmap(bitmap: OpenedFile['inspection']['dirtyBitmaps'][number]): string {
  const { node, name, granularity, coveredBytes, dirtyBits, complete } = bitmap;
  const dirty = formatBytes(Math.min(dirtyBits * granularity, coveredBytes));
  return printable(
    `${name} of ${node}: ${dirty} of ${formatBytes(coveredBytes)} dirty${complete ? '' : ', not complete'}`,
  );
}

const listNames = (names: readonly string[]) => (names.length === 0 ? undefined : names.map(printable).join(', '));

function describeLength(length: number | undefined, size: number | undefined): string {
  if (length !== undefined) return `${formatBytes(length)} (${formatCount(length)} bytes)`;
  const whole = size === undefined ? '' : ` (the file has ${formatCount(size)} bytes)`;
  return `unknown, since the end was not reached${whole}`;
}

function describeContainer(container: InspectedContainer): string {
  switch (container.kind) {
    case 'compressed':
      return `${container.format} compression`;
    case 'libvirt':
      return `libvirt save image${container.domain.name === undefined ? '' : ` of ${printable(container.domain.name)}`}`;
    case 'qcow2':
      return `qcow2 snapshot ${printable(container.name)}`;
    case 'zip':
      return `member ${printable(container.member)} of a zip archive`;
  }
}

/** The RAM blocks with their pages by state, in numbers and as a bar. A click shows a block on the map. */
function BlockTable() {
  const { file, map } = useMachine();
  const { shown, more } = useMore(file.blocks);
  if (file.blocks.length === 0) return <p class="empty">No RAM blocks: the list of blocks was not reached.</p>;
  return (
    <div class="table-frame">
      <table class="blocks" data-test="blocks">
        <caption class="visually-hidden">RAM blocks with their pages by final state</caption>
        <thead>
          <tr>
            {['Block', 'Size', 'Zero', 'Data', 'XBZRLE', 'Absent'].map((name, i) => (
              <th key={name} scope="col" class={i === 0 ? '' : 'number'}>
                {name}
              </th>
            ))}
            <th scope="col" class="bar-column">
              <span class="visually-hidden">Shares</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {shown.map((block) => (
            <tr key={block.index}>
              <th scope="row">
                <button
                  type="button"
                  class="link"
                  aria-pressed={map.block.value === block.index}
                  onClick={() => map.select(block.index, 0)}
                >
                  {printable(block.idstr)}
                </button>
              </th>
              <td class="number">{formatBytes(block.usedLength)}</td>
              <BlockCounts block={block} />
            </tr>
          ))}
        </tbody>
      </table>
      {more}
    </div>
  );
}

function BlockCounts({ block }: { block: BlockView }) {
  const { file } = useMachine();
  const pages = file.inspection.ram.blocks[block.index]?.pages;
  if (pages === undefined) return null;
  const data = pages.normal + pages.compressed;
  const classes = layerClasses.state ?? [];
  const shares = [
    [2, data],
    [3, pages.xbzrle],
    [1, pages.zero],
    [0, pages.absent],
  ] as const;
  return (
    <>
      {[pages.zero, data, pages.xbzrle, pages.absent].map((count, i) => (
        <td key={i} class={count === 0 ? 'number is-none' : 'number'}>
          {formatCount(count)}
        </td>
      ))}
      <td class="bar-column" aria-hidden="true">
        <div class="bar">
          {shares.map(([number, count]) =>
            count === 0 ? null : (
              <i
                key={number}
                class={classes[number]?.isHollow ? 'is-hollow' : ''}
                style={{ flexGrow: count, ...swatch(classes[number]) }}
              />
            ),
          )}
        </div>
      </td>
    </>
  );
}
