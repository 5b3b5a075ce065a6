/** The report of `vmferry convert` and `vmferry merge`: what was written. */
import type { Conversion } from '../../tasks/convert/convert.ts';
import type { ConvertJson } from '../../tasks/json.ts';
import { toJson, type Unversioned } from '../json.ts';
import { warn } from '../messages.ts';
import { missingFacts, reportMissing } from '../partial.ts';
import { formatBytes, plural, printable } from '../print/format.ts';

/** What was written. */
export interface Written {
  source: string;
  output: string;
  form: ConvertJson['format'];
  conversion: Conversion;
  /** Where the stream begins in the file, if not at its beginning. */
  offset?: number;
  /** Bytes of the file, or from the offset on. */
  length: number;
  isVerified: boolean;
  /** Of a multifd set. */
  multifd?: { compression: string; channels: readonly { path: string; length: number }[] };
}

/** Says what was written, as JSON or in words. */
export type Report = (written: Written, isJson: boolean) => void;

/** Warns of content that is missing. */
export function warnOfMissing({ blocks, format, vm: { missing } }: Conversion): void {
  if (missing !== undefined) {
    reportMissing(missing);
    return;
  }
  for (const { idstr, absentPages } of blocks) {
    if (absentPages === 0) continue;
    const then = format === 'mapped-ram' ? 'have become zero pages' : 'are not sent again';
    warn(`${plural(absentPages, 'page')} of ${idstr} were never sent, and ${then}`);
  }
}

export function printWritten(written: Written, isJson: boolean): void {
  const { source, output, form, conversion, offset, length, isVerified, multifd } = written;
  const { blocks, vm } = conversion;
  warnOfMissing(conversion);
  if (isJson) {
    const facts: Unversioned<ConvertJson> = {
      source,
      output,
      format: form,
      ...(offset === undefined ? {} : { offset }),
      machine: vm.configuration?.machine,
      length,
      ...(multifd === undefined ? {} : { compression: multifd.compression, channels: [...multifd.channels] }),
      blocks: [...blocks],
      devices: vm.devices.length,
      hasDescription: vm.description !== undefined,
      plan: vm.plan,
      isVerified,
      ...missingFacts(vm.missing),
    };
    process.stdout.write(toJson<ConvertJson>(facts));
    return;
  }
  const sum = (what: 'dataPages' | 'zeroPages') => blocks.reduce((total, block) => total + block[what], 0);
  const facts = [
    `${form}${vm.configuration === undefined ? '' : ` of ${printable(vm.configuration.machine)}`}`,
    formatBytes(length),
    `${plural(sum('dataPages'), 'page')} with data`,
    `${plural(sum('zeroPages'), 'zero page')}`,
    ...describeChanges(blocks),
    plural(vm.devices.length, 'device state'),
    isVerified ? 'verified' : 'not verified',
  ];
  const at = offset === undefined ? '' : ` at ${offset}`;
  process.stdout.write(`${printable(output)}${at}: ${facts.join(', ')}\n`);
  for (const channel of multifd?.channels ?? []) {
    const compression = multifd?.compression === 'none' ? '' : `, ${multifd?.compression}`;
    process.stdout.write(`${printable(channel.path)}: multifd channel, ${formatBytes(channel.length)}${compression}\n`);
  }
}

/** Describes the second pass, if there is one. */
function describeChanges(blocks: Conversion['blocks']): string[] {
  const changes = blocks.flatMap(({ changes }) => changes ?? []);
  if (changes.length === 0) return [];
  const sum = (what: keyof (typeof changes)[number]) => changes.reduce((total, block) => total + block[what], 0);
  const deltas = `${plural(sum('deltaPages'), 'delta')} of ${formatBytes(sum('deltaBytes'))}`;
  return [`then ${deltas}, ${plural(sum('dataPages') + sum('zeroPages'), 'whole page')}`];
}
