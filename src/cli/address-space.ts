/** Addresses that people have, in `read` and `search`: guest-physical ones, and virtual ones of a CPU. */
import { realpathSync } from 'node:fs';
import { openScratch } from '../io/node/output-file.ts';
import type { MigrationFile } from '../read/open.ts';
import { type AddressSpace, openAddressSpace } from '../tasks/addresses/address-space.ts';
import type { CliCommand } from './command.ts';
import type { PartialOption } from './partial.ts';
import { addLayoutOptions, type LayoutFlags, layoutOf, warnOfLayout } from './physical.ts';
import { parseAddress, parseIndex } from './size.ts';

/** The options of a command that takes addresses. */
export interface AddressFlags extends LayoutFlags {
  physical?: boolean;
  virtual?: boolean;
  cpu?: number;
  cr3?: bigint;
}

/** `what` becomes an address. */
export function addAddressOptions(command: CliCommand, what: string): CliCommand {
  command
    .option('--physical', `${what} guest-physical`)
    .option('--virtual', `${what} virtual, as a CPU's page tables translate them`)
    .option('--cpu <N>', 'the CPU whose page tables translate virtual addresses (default: 0)', parseIndex)
    .option(
      '--cr3 <ADDRESS>',
      "use these page tables instead of the CPU's own: its CR3 (x86), TTBR0 (ARM) or satp (RISC-V)",
      parseAddress,
    );
  return addLayoutOptions(command);
}

/** Rules for these options. */
export const addressRules = {
  oneOf: [['--block', '--physical', '--virtual']],
  needs: {
    '--cpu': ['--virtual'],
    '--cr3': ['--virtual'],
    ...Object.fromEntries(
      ['--below-4g', '--above-4g', '--ram', '--dimm'].map((flag) => [flag, ['--physical', '--virtual']]),
    ),
  },
};

export const addressNotes = [
  'Virtual addresses are translated by the page tables of x86 (32-bit, PAE, four and five levels), AArch64 and 64-bit RISC-V, as they are in the saved RAM. On x86 they are linear addresses: segments are not added.',
];

/** What the options ask for. Undefined: offsets in a RAM block. */
export function addressKind({ physical, virtual }: AddressFlags): AddressSpace['kind'] | undefined {
  return virtual === true ? 'virtual' : physical === true ? 'physical' : undefined;
}

/** Opens the addresses that the options ask for, and warns of what is assumed about the machine's layout. */
export async function openAddresses(
  file: MigrationFile,
  kind: AddressSpace['kind'],
  options: AddressFlags & PartialOption & { scratch: string },
): Promise<AddressSpace> {
  const { cpu, cr3 } = options;
  const space = await openAddressSpace(file, {
    kind,
    makeScratch: () => openScratch(realpathSync(options.scratch)),
    partial: options.partial === true,
    ...(cpu === undefined ? {} : { cpu }),
    ...(cr3 === undefined ? {} : { cr3 }),
    ...layoutOf(options),
  });
  warnOfLayout(space.layout);
  return space;
}

/** An address as people write it. */
export const formatAddress = (address: bigint): string => `0x${address.toString(16)}`;
