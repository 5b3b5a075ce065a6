/**
 * What suggests that a base is a state of another VM. None of it is an error: a machine type can change, memory can be
 * added, and a clone has much in common with the guest that it was made from. A file of changes is right in any case, but it
 * may be as large as the VM itself.
 */
import type { PairWindow } from '../../store/page-pairs.ts';
import { isBitSet } from '../../vm/bits.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';
import { formatUuid } from '../../vm/uuid.ts';

/** The pages of the base that are not zero, and how many of them NEW has at the same place. */
export interface CommonPages {
  base: number;
  same: number;
}

/** Below so many pages in a base, their number says nothing. */
const fewPages = 16;

/** Adds the pages of a window. */
export function countCommon({ count, changed, oldZero }: PairWindow, common: CommonPages): void {
  for (let i = 0; i < count; i++) {
    if (isBitSet(oldZero, i)) continue;
    common.base++;
    if (!isBitSet(changed, i)) common.same++;
  }
}

/** Says what is strange about a base, one sentence each. */
export function doubtsAbout(
  base: Pick<SavedVm, 'configuration' | 'ram'>,
  now: Pick<SavedVm, 'configuration' | 'ram'>,
  common: CommonPages,
): string[] {
  const doubts: string[] = [];
  const [machine, uuid] = [base.configuration?.machine, base.configuration?.uuid];
  const own = now.configuration;
  if (machine !== undefined && own !== undefined && machine !== own.machine) {
    doubts.push(`the base is of the machine type ${machine}, not ${own.machine}`);
  }
  if (uuid !== undefined && own?.uuid !== undefined && uuid.toLowerCase() !== own.uuid.toLowerCase()) {
    doubts.push(`the base is of the VM with the UUID ${formatUuid(uuid)}, not ${formatUuid(own.uuid)}`);
  }
  doubts.push(...strangeBlocks(base, now));
  const { base: pages, same } = common;
  if (pages >= fewPages && same * 100 < pages) {
    doubts.push(`only ${same} of the ${pages} pages of the base that are not zero are unchanged`);
  }
  return doubts;
}

function strangeBlocks(base: Pick<SavedVm, 'ram'>, now: Pick<SavedVm, 'ram'>): string[] {
  const lengths = new Map(base.ram.blocks.map(({ idstr, usedLength }) => [idstr, usedLength]));
  const missing = now.ram.blocks.filter(({ idstr }) => !lengths.has(idstr));
  const resized = now.ram.blocks.filter(({ idstr, usedLength }) => (lengths.get(idstr) ?? usedLength) !== usedLength);
  const named = (blocks: typeof missing) => blocks.map(({ idstr }) => idstr).join(', ');
  return [
    ...(missing.length === 0 ? [] : [`the base lacks RAM blocks: ${named(missing)}`]),
    ...(resized.length === 0 ? [] : [`the base has RAM blocks of another size: ${named(resized)}`]),
  ];
}
