/** The report of `vmferry diff`: in words, and as JSON. */
import type { DeviceDiff } from '../../devices/device-diff.ts';
import type { ContentPlan } from '../../store/content-plan.ts';
import type { DevicesDiff, VmDiff } from '../../tasks/diff/diff.ts';
import type { BlockDiff, MapCell, RamDiff } from '../../tasks/diff/diff-ram.ts';
import type { DiffJson } from '../../tasks/json.ts';
import { describeBlock, describeChange, describeFact } from '../../words/diff-words.ts';
import { toJson } from '../json.ts';
import { missingFacts } from '../partial.ts';
import { formatBytes, formatCount, formatHex, formatTable, painter, plural, printable } from './format.ts';
import { drawRows } from './page-map.ts';

type Names = readonly [old: string, now: string];

/** The report, in pieces. */
export function* describeDiff(diff: VmDiff, [old, now]: Names): Generator<string, void> {
  const paint = painter(process.stdout);
  const { same, facts, ram, devices, notCompared } = diff;
  const verdict = same ? paint('green', 'the same') : paint('red', 'not the same');
  yield `${paint('bold', printable(old))} and ${paint('bold', printable(now))}: ${verdict}\n`;
  for (const fact of facts) yield `  ${describeFact(fact)}\n`;
  if (ram !== undefined) {
    yield `\n${ramTable(ram)}\n`;
    for (const line of describeBlocks(ram)) yield `  ${line}\n`;
    for (const block of ram.blocks) if (block.same < block.pages) yield `\n${describePages(block)}\n`;
  }
  if (devices !== undefined) {
    yield `\n  ${describeDevices(devices)}\n`;
    for (const { name, instanceId } of devices.removed) yield `  only in A: ${nameOf({ name, instanceId })}\n`;
    for (const { name, instanceId } of devices.added) yield `  only in B: ${nameOf({ name, instanceId })}\n`;
    for (const device of devices.changed) yield* describeDevice(device);
  }
  if (notCompared.length > 0) yield `\n  not compared: ${printable(notCompared.join(', '))}\n`;
}

function ramTable({ blocks }: RamDiff): string {
  const rows = [['block', 'size', 'pages', 'same', 'changed', 'to zero', 'to data', 'absent in A', 'in B']];
  for (const { idstr, newLength, pages, same, changes, oldAbsent, newAbsent, notCompared } of blocks) {
    const { changed, becameZero, becameData } = changes;
    const counts = [pages, same, changed, becameZero, becameData].map((count) =>
      notCompared === undefined ? formatCount(count) : '-',
    );
    const absent = [oldAbsent, newAbsent].map((count) => (count === undefined ? '-' : formatCount(count)));
    rows.push([printable(idstr), formatBytes(newLength), ...counts, ...absent]);
  }
  return formatTable(rows, ['left', ...new Array<'right'>((rows[0] as string[]).length - 1).fill('right')]);
}

function* describeBlocks({ blocks, onlyOld, onlyNew }: RamDiff): Generator<string, void> {
  for (const { idstr, length } of onlyOld) yield `only in A: ${printable(idstr)}, ${formatBytes(length)}`;
  for (const { idstr, length } of onlyNew) yield `only in B: ${printable(idstr)}, ${formatBytes(length)}`;
  for (const block of blocks) {
    const note = describeBlock(block);
    if (note !== undefined) yield note;
  }
}

/** How many ranges are listed in words. */
const listedRanges = 8;

/** Lists where the pages of a block differ, and draws a map of them. */
function describePages({ idstr, ranges, map, pageSize }: BlockDiff): string {
  const texts = ranges.slice(0, listedRanges).map(({ first, count, changed }) => {
    const from = formatHex(first * pageSize);
    const pages = changed === count ? plural(count, 'page') : `${formatCount(changed)} of ${plural(count, 'page')}`;
    return `${pages} from ${from} on`;
  });
  const left = ranges.length - texts.length;
  if (left > 0) texts.push(`… and ${formatCount(left)} more ranges`);
  return `${printable(idstr)}: ${texts.join(', ')}\n${drawChanges(map)}`;
}

function drawChanges(map: readonly MapCell[]): string {
  const paint = painter(process.stdout);
  const draw = ({ pages, changed, becameZero, becameData }: MapCell) => {
    const sum = changed + becameZero + becameData;
    if (sum === 0) return paint('dim', '·');
    if (becameZero * 2 > sum) return paint('cyan', 'o');
    return paint('yellow', sum * 2 >= pages ? '█' : '▒');
  };
  const about = plural(map[0]?.pages ?? 0, 'page');
  return `${drawRows(map.map(draw))}\n  about ${about} per character: · same, █ most changed, ▒ some changed, o became zero`;
}

function describeDevices({ same, changed, removed, added }: DevicesDiff): string {
  const parts = [`${plural(same, 'device')} with the same state`];
  if (changed.length > 0) parts.push(`${formatCount(changed.length)} with different state`);
  if (removed.length + added.length > 0)
    parts.push(`${formatCount(removed.length + added.length)} in only one of them`);
  return parts.join(', ');
}

const nameOf = ({ name, instanceId }: { name: string; instanceId: number }) => printable(`${name}#${instanceId}`);

function* describeDevice(device: DeviceDiff): Generator<string, void> {
  const { changes, changeCount, problem } = device;
  const how = problem === undefined ? '' : `, compared as bytes: ${printable(problem)}`;
  yield `\n${painter(process.stdout)('bold', nameOf(device))}: ${plural(changeCount, 'difference')}${how}\n`;
  for (const change of changes) yield `  ${describeChange(change)}\n`;
  if (changeCount > changes.length) yield `  … and ${formatCount(changeCount - changes.length)} more\n`;
}

export function diffToJson(
  { same, facts, ram, devices, notCompared, plan, missing }: VmDiff & { plan: { old: ContentPlan; new: ContentPlan } },
  [old, now]: Names,
): string {
  const blocks = ram?.blocks.map(({ map: _, ...block }) => block) ?? [];
  return toJson<DiffJson>({
    ...{ old, new: now, same, facts },
    ram: ram === undefined ? undefined : { ...ram, blocks },
    ...{ devices, notCompared, plan },
    missing: { old: missingFacts(missing.old).missing, new: missingFacts(missing.new).missing },
  });
}
