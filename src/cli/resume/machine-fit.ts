/**
 * Whether the arguments of a QEMU command fit the guest in FILE, as far as words can show it, before anything is started. QEMU
 * itself compares devices when it loads the small stream, before the guest runs.
 */
import type { Resume } from '../../tasks/resume/resume-arguments.ts';
import { UsageError } from '../exit-codes.ts';
import { formatBytes } from '../print/format.ts';
import { backendsIn, machineIn, memoryIn, type QemuOption } from './qemu-arguments.ts';

/** Options that would give the guest other memory, or load something else. */
const conflicts: Readonly<Record<string, string>> = {
  incoming: 'resume adds its own',
  loadvm: 'the guest comes from FILE',
  'mem-path': 'the memory is FILE',
  'mem-prealloc': 'it would read all of FILE before the guest runs',
};

/** The short names of machine types. */
const aliases: Readonly<Record<string, string>> = { q35: 'pc-q35', pc: 'pc-i440fx' };
/** The memory of a PC without -m. */
const defaultMemory = 128 << 20;

/** @throws UsageError for the first argument that does not fit */
export function requireFit(
  options: readonly QemuOption[],
  { machine, mapped, blocks }: Pick<Resume, 'machine' | 'mapped' | 'blocks'>,
): void {
  for (const { name } of options) {
    const why = Object.hasOwn(conflicts, name) ? conflicts[name] : undefined;
    if (why !== undefined) throw new UsageError(`expected ARGS without -${name}: ${why}`);
  }
  const given = machineIn(options);
  if (machine !== undefined && given !== undefined && !isSameMachine(given, machine)) {
    throw new UsageError(
      `the guest was saved on the machine type ${machine}: expected -machine ${machine}, got ${given}`,
    );
  }
  for (const { id } of backendsIn(options)) {
    if (blocks.some(({ idstr }) => idstr === id || idstr === `/objects/${id}`)) continue;
    const names = blocks.map(({ idstr }) => idstr).join(', ');
    throw new UsageError(`the memory backend ${id} has no RAM block in FILE, which has ${names}`);
  }
  requireMemory(options, machine, mapped);
}

function requireMemory(options: readonly QemuOption[], machine: string | undefined, mapped: Resume['mapped']): void {
  // Memory devices are beside what -m says.
  const own = mapped.filter(({ isDefault }) => isDefault);
  if (own.length !== 1) return;
  const hasSize = options.some(({ name }) => name === 'm');
  const isPc = machine?.startsWith('pc-') === true;
  const got = hasSize ? memoryIn(options) : isPc ? defaultMemory : undefined;
  const [{ length }] = own as [Resume['mapped'][number]];
  if (got === undefined || got === length) return;
  const size = length % 2 ** 20 === 0 ? `${length / 2 ** 20}M` : `${length}B`;
  const instead = hasSize ? formatBytes(got) : `QEMU's default of ${formatBytes(got)}`;
  throw new UsageError(`the guest in FILE has ${formatBytes(length)} of RAM: expected -m ${size}, got ${instead}`);
}

/** Whether a name stands for a machine type. An alias without a version may be it. */
function isSameMachine(given: string, machine: string): boolean {
  if (given === machine) return true;
  const family = aliases[given] ?? given;
  return machine.startsWith(`${family}-`) && /^\d/.test(machine.slice(family.length + 1));
}
