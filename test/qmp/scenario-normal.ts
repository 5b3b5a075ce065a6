/** Answers of a migrating VM without what differs from run to run: times, and counts that depend on them. */
import { parseJson } from '../../src/qmp/json-reader.ts';
import { plainValue } from '../../src/qmp/json-value.ts';

/** A message of QMP, or an object in one. */
export type Message = Record<string, unknown>;

/** Reads a message. What a count divided by zero gives is not JSON. */
export const messageOf = (line: string): Message =>
  plainValue(parseJson(line.replace(/: -?(inf|nan)\b/g, ': 0'))) as Message;

const times = new Set(['downtime', 'expected-downtime', 'setup-time', 'total-time']);
/** Counts of RAM that a finished migration of an idle guest always has. */
const certain = new Set(['total', 'page-size', 'remaining', 'duplicate', 'skipped', 'normal', 'normal-bytes']);
const always = new Set(['total', 'page-size']);
const never = new Set(['thread-id', 'start-time', 'cpu-throttle-percentage']);
const certainlyZero = new Set([
  'postcopy-bytes',
  'postcopy-requests',
  'dirty-sync-missed-zero-copy',
  'dirty-pages-rate',
]);

const isObject = (value: unknown): value is Message =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function ramOf(ram: Message, isOver: boolean): Message {
  // A page that broke off is sent again.
  const isCertain = isOver && (ram['postcopy-bytes'] ?? 0) === 0;
  const isZero = (name: string) => certainlyZero.has(name) && ram[name] === 0;
  const stays = (name: string) => always.has(name) || isZero(name) || (isCertain && certain.has(name));
  return mapMembers(ram, (value, name) => (stays(name) ? value : '<n>'));
}

const mapMembers = (object: Message, change: (value: unknown, name: string) => unknown): Message =>
  Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value, name)]));

/** Takes times and counts out of an answer's value. */
export function withoutCounts(value: unknown): unknown {
  if (Array.isArray(value)) return sorted(value.map(withoutCounts));
  if (!isObject(value)) return value;
  const isOver = value.status === 'completed';
  return mapMembers(value, (member, name) => {
    if (times.has(name)) return '<ms>';
    if (never.has(name)) return '<n>';
    if (name === 'ram' && isObject(member)) return ramOf(member, isOver);
    if (name === 'xbzrle-cache' && isObject(member)) {
      return mapMembers(member, (count, which) => (which === 'cache-size' ? count : '<n>'));
    }
    return withoutCounts(member);
  });
}

/** Lists whose order means nothing: threads, and what can be yanked. How many monitors there are is left out. */
function sorted(items: unknown[]): unknown[] {
  const isLoose = items.every(
    (item) => isObject(item) && ('thread-id' in item || item.type === 'chardev' || item.type === 'migration'),
  );
  if (!isLoose) return items;
  const shown = items.filter((item) => !isObject(item) || item.type !== 'chardev');
  return shown.sort((a, b) => (write(a) < write(b) ? -1 : 1));
}

/** JSON as QEMU spaces it, with members in order of their names. */
export function write(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(write).join(', ')}]`;
  if (isObject(value)) {
    const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${members.map(([name, member]) => `${JSON.stringify(name)}: ${write(member)}`).join(', ')}}`;
  }
  return typeof value === 'bigint' ? String(value) : JSON.stringify(value);
}

/** An event as transcripts have it; undefined for a pass after the first. */
export function eventText({ event, data }: Message): string | undefined {
  if (event === 'MIGRATION_PASS' && isObject(data) && data.pass !== 1) return undefined;
  return data === undefined ? String(event) : `${String(event)} ${write(withoutCounts(data))}`;
}
