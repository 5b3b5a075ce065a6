/** `vmferry convert NEW OUT --only-changed-from BASE`: a file of the pages that changed since BASE (docs/formats/incremental.md). */
import { realpathSync } from 'node:fs';
import { isReplaceable, OutputFile, openScratch } from '../../io/node/output-file.ts';
import { convertToChanges, type SavedChanges } from '../../tasks/convert/changes.ts';
import type { ConvertChangesJson } from '../../tasks/json.ts';
import { UsageError } from '../exit-codes.ts';
import { openInput, requireInputsOnce, withFile } from '../input.ts';
import { toJson, type Unversioned } from '../json.ts';
import { warn } from '../messages.ts';
import { refuseInput } from '../output.ts';
import { formatBytes, formatCount, plural, printable } from '../print/format.ts';
import { checkAgain } from './check-again.ts';
import type { ConvertOptions } from './form.ts';
import { checkMultifdOptions } from './multifd.ts';
import { requireNoOffset } from './target.ts';

export async function convertChanges(
  location: string,
  baseLocation: string,
  output: string,
  options: ConvertOptions,
): Promise<void> {
  await withFile('convert', location, options, async (file) => {
    const base = await openInput(baseLocation, { discover: options.discover !== false });
    try {
      for (const input of [file, base]) refuseInput(input, output);
      // Opened first, so that an output that cannot be written fails before a long read.
      const target = new OutputFile(output);
      try {
        const makeScratch = () => openScratch(realpathSync(options.scratch));
        const changes = await convertToChanges(file, base, target.file, { makeScratch });
        try {
          if (options.verify) await checkAgain(changes, target.file);
        } finally {
          await changes.close();
        }
        await target.commit();
        const names = { source: file.source.name, base: base.source.name, output: target.path };
        print(names, changes, options);
      } catch (error) {
        await target.abandon();
        throw error;
      }
    } finally {
      await base.close();
    }
  });
}

/** Options that belong to other forms. */
const foreign = {
  ...{ block: '--block', xml: '--xml', base: '--base', dropDescription: '--drop-description', compat: '--compat' },
  ...{ libvirtFormat: '--libvirt-format', directIo: '--direct-io' },
} as const;

/** @throws UsageError for options that a file of changes cannot use */
export function requireChanges(location: string | undefined, output: string, options: ConvertOptions): void {
  const { to } = options;
  if (to !== undefined && to !== 'mapped-ram') {
    throw new UsageError(`--only-changed-from goes with --to mapped-ram, not with ${to}`);
  }
  for (const [key, name] of Object.entries(foreign)) {
    if (options[key as keyof typeof foreign] === undefined) continue;
    throw new UsageError(`--only-changed-from does not go with ${name}`);
  }
  checkMultifdOptions('mapped-ram', options);
  requireNoOffset(output, 'a file of changes');
  requireInputsOnce([location, options.onlyChangedFrom], options);
  if (output === '-' || !isReplaceable(output)) {
    throw new UsageError('a file of changes needs random access: expected the name of a file to write');
  }
}

function print(
  names: { source: string; base: string; output: string },
  { blocks, ids, doubts, length, vm }: SavedChanges,
  { json, verify }: ConvertOptions,
): void {
  const sum = (what: 'pages' | 'changedPages' | 'zeroPages') => blocks.reduce((total, block) => total + block[what], 0);
  for (const doubt of doubts) warn(`${doubt}; is ${printable(names.base)} an earlier state of this VM?`);
  if (json === true) {
    const facts: Unversioned<ConvertChangesJson> = {
      ...{ ...names, format: 'changes' as const, machine: vm.configuration?.machine, length, changes: ids },
      blocks: [...blocks],
      doubts: [...doubts],
      ...{ devices: vm.devices.length, hasDescription: vm.description !== undefined, isVerified: verify },
    };
    process.stdout.write(toJson<ConvertChangesJson>(facts));
    return;
  }
  const bytes = blocks.reduce((total, { changedPages, zeroPages, length: of, pages }) => {
    return total + (changedPages - zeroPages) * (of / Math.max(1, pages));
  }, 0);
  const facts = [
    `changes since ${printable(names.base)}`,
    `${formatCount(sum('changedPages'))} of ${plural(sum('pages'), 'page')}`,
    `${sum('zeroPages') === 0 ? 'none' : formatCount(sum('zeroPages'))} of them became zero`,
    `${formatBytes(bytes)} of pages`,
    plural(vm.devices.length, 'device state'),
    verify ? 'verified' : 'not verified',
  ];
  process.stdout.write(`${printable(names.output)}: ${facts.join(', ')}\n`);
}
