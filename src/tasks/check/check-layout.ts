/**
 * Decides whether a target reads as many bytes as a device's state has (docs/check.md, "Fields"). Fields on the wire have no
 * names. A loader with another list of fields reads from wrong places, and notices that only at the section's footer. So two
 * lists are aligned by names, and the bytes between two fields of the same name are compared. A field that was only renamed
 * is harmless.
 */

/** A field, or all elements of an array, of one side. */
export interface LayoutItem {
  /** Without the [n] that tells fields of the same name apart. */
  name: string;
  /** Bytes in all, if known. */
  bytes: number | undefined;
  /** Exists only under a condition that is unknown here. */
  isConditional: boolean;
  /** May have no elements, and therefore no bytes. */
  mayBeEmpty: boolean;
}

/** How one item of the source is loaded. */
interface Pair<Source extends LayoutItem, Target extends LayoutItem> {
  source: Source;
  target: Target;
}

/** Neighbouring items that have no partner of their name. */
export interface Gap<Source extends LayoutItem, Target extends LayoutItem> {
  source: Source[];
  target: Target[];
  /**
   * `same-bytes`: the target reads as many bytes; `conditional`: it does if conditions hold; `unknown`: it may; `empty`: it
   * reads one more array, which must be empty; `differs`: it reads more or fewer bytes; `skipped`: it reads nothing unless
   * conditions hold.
   */
  kind: 'same-bytes' | 'conditional' | 'unknown' | 'empty' | 'differs' | 'skipped';
}

/** Two lists of fields, side by side. */
export interface Alignment<Source extends LayoutItem, Target extends LayoutItem> {
  pairs: Pair<Source, Target>[];
  gaps: Gap<Source, Target>[];
  /** Gaps differ, but under some conditions the total bytes would match, with fields mixed up. */
  mayShift: boolean;
}

/** The most comparisons for two lists. QEMU's longest list has some 200 fields. */
const maxCells = 4_000_000;
/** The largest sum of conditional fields that is searched for. */
const maxSum = 65_536;

/**
 * Aligns two lists. `isSame`: whether two items are one field; `isTaken`: whether one item can be read as another;
 * `mayCompare`: whether there is time for so many comparisons. Undefined if the lists are too long.
 */
export function align<Source extends LayoutItem, Target extends LayoutItem>(
  source: readonly Source[],
  target: readonly Target[],
  isSame: (source: Source, target: Target) => boolean,
  isTaken: (source: Source, target: Target) => boolean,
  mayCompare: (times: number) => boolean = () => true,
): Alignment<Source, Target> | undefined {
  const matches = findMatches(source, target, isSame, mayCompare);
  if (matches === undefined) return undefined;
  const pairs: Pair<Source, Target>[] = [];
  const gaps: Gap<Source, Target>[] = [];
  let i = 0;
  let j = 0;
  for (const [si, tj] of [...matches, [source.length, target.length] as const]) {
    if (si > i || tj > j) gaps.push(judgeGap(source.slice(i, si), target.slice(j, tj), isTaken));
    if (si < source.length) pairs.push({ source: source[si] as Source, target: target[tj] as Target });
    i = si + 1;
    j = tj + 1;
  }
  return { pairs, gaps, mayShift: mayShift(gaps) };
}

/** The longest common subsequence, as pairs of indexes. */
function findMatches<Source, Target>(
  source: readonly Source[],
  target: readonly Target[],
  isSame: (source: Source, target: Target) => boolean,
  mayCompare: (times: number) => boolean,
): [number, number][] | undefined {
  const same = (i: number, j: number) => isSame(source[i] as Source, target[j] as Target);
  let from = 0;
  const shorter = Math.min(source.length, target.length);
  while (from < shorter && same(from, from)) from++;
  let tail = 0;
  while (tail < shorter - from && same(source.length - 1 - tail, target.length - 1 - tail)) tail++;
  const rows = source.length - from - tail;
  const columns = target.length - from - tail;
  if (rows * columns > maxCells || !mayCompare(rows * columns)) return undefined;
  const width = columns + 1;
  // The longest match from each pair of positions on.
  const lengths = new Uint32Array((rows + 1) * width);
  const at = (i: number, j: number) => lengths[i * width + j] as number;
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      const skip = Math.max(at(i + 1, j), at(i, j + 1));
      const take = at(i + 1, j + 1) + 1;
      lengths[i * width + j] = take > skip && same(from + i, from + j) ? take : skip;
    }
  }
  const matches = Array.from({ length: from }, (_, i): [number, number] => [i, i]);
  for (let i = 0, j = 0; i < rows && j < columns; ) {
    if (at(i, j) === at(i + 1, j + 1) + 1 && same(from + i, from + j)) matches.push([from + i++, from + j++]);
    else if (at(i + 1, j) >= at(i, j + 1)) i++;
    else j++;
  }
  for (let k = tail; k > 0; k--) matches.push([source.length - k, target.length - k]);
  return matches;
}

function judgeGap<Source extends LayoutItem, Target extends LayoutItem>(
  source: Source[],
  target: Target[],
  isTaken: (source: Source, target: Target) => boolean,
): Gap<Source, Target> {
  const gap = (kind: Gap<Source, Target>['kind']) => ({ source, target, kind });
  const always = target.filter(({ isConditional }) => !isConditional);
  const wanted = sumBytes(source);
  if (wanted === undefined) return gap('unknown');
  if (wanted === 0) {
    if (always.length === 0) return gap('skipped');
    if (always.every(({ bytes }) => bytes === 0)) return gap('skipped');
    return gap(always.every(({ mayBeEmpty, bytes }) => mayBeEmpty || bytes === 0) ? 'empty' : 'differs');
  }
  if (target.length === 0) return gap('differs');
  const [first] = source;
  const found = always.length === target.length ? 'same-bytes' : 'conditional';
  if (source.length === 1 && target.length === 1 && isTaken(first as Source, target[0] as Target)) return gap(found);
  const fixed = sumBytes(always);
  if (fixed === undefined || target.some(({ bytes }) => bytes === undefined)) return gap('unknown');
  const free = target.filter(({ isConditional }) => isConditional).map(({ bytes }) => bytes as number);
  if (wanted === fixed) return gap('same-bytes');
  return gap(canSum(free, wanted - fixed) ? 'conditional' : 'differs');
}

/** Undefined if a size is unknown. */
function sumBytes(items: readonly LayoutItem[]): number | undefined {
  return items.reduce<number | undefined>(
    (sum, { bytes }) => (sum === undefined || bytes === undefined ? undefined : sum + bytes),
    0,
  );
}

/** Whether some of the sizes add up to exactly `wanted`. */
function canSum(sizes: readonly number[], wanted: number): boolean {
  if (wanted < 0 || wanted > maxSum) return false;
  const reachable = new Uint8Array(wanted + 1);
  reachable[0] = 1;
  for (const size of sizes)
    for (let sum = wanted; sum >= size; sum--) reachable[sum] ||= reachable[sum - size] as number;
  return reachable[wanted] === 1;
}

/** Whether the total bytes of all differing gaps could match, under conditions in other gaps. */
function mayShift(gaps: readonly Gap<LayoutItem, LayoutItem>[]): boolean {
  const differing = gaps.filter(({ kind }) => kind === 'differs');
  if (differing.length === 0) return false;
  const have = sumBytes(differing.flatMap(({ source }) => source));
  const fixed = sumBytes(differing.flatMap(({ target }) => target.filter(({ isConditional }) => !isConditional)));
  if (have === undefined || fixed === undefined) return false;
  const free = gaps
    .filter(({ kind }) => kind === 'differs' || kind === 'skipped')
    .flatMap(({ target }) => target.filter(({ isConditional }) => isConditional))
    .flatMap(({ bytes }) => (bytes === undefined ? [] : [bytes]));
  return canSum(free, have - fixed);
}
