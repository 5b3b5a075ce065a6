/**
 * Chooses the form that `vmferry convert` writes, from its options and the name of its output, and checks which options
 * the form can use.
 */

import type { LibvirtFormat } from '../../read/container/libvirt-header.ts';
import type { ReleaseName } from '../../schema/release-rules.ts';
import { UsageError } from '../exit-codes.ts';
import type { InputOptions } from '../input.ts';
import { isStandardOutput } from '../output.ts';
import type { PartialOption } from '../partial.ts';
import { checkMultifdOptions, type MultifdOptions } from './multifd.ts';
import { parseTarget } from './target.ts';

export const forms = ['stream', 'multifd', 'mapped-ram', 'raw', 'libvirt'] as const;
export type Form = (typeof forms)[number];
/** The forms that contain a whole VM. */
export type WholeForm = Exclude<Form, 'raw'>;

/** Suffixes of OUT that imply a form. */
const suffixes: Record<string, Form> = {
  '.stream': 'stream',
  '.migration': 'stream',
  '.mapped-ram': 'mapped-ram',
  '.raw': 'raw',
};

export interface ConvertOptions extends InputOptions, MultifdOptions, PartialOption {
  to?: Form;
  block?: string;
  xml?: string;
  libvirtFormat?: LibvirtFormat;
  directIo?: boolean;
  base?: string;
  onlyChangedFrom?: string;
  compat?: ReleaseName;
  dropDescription?: boolean;
  /** False with --no-verify. */
  verify: boolean;
  scratch: string;
  json?: boolean;
}

/** Options that only some forms can use. */
const belongings: [option: string, value: (options: ConvertOptions) => unknown, to: readonly Form[]][] = [
  ['--block', ({ block }) => block, ['raw']],
  ['--xml', ({ xml }) => xml, ['libvirt']],
  ['--libvirt-format', ({ libvirtFormat }) => libvirtFormat, ['libvirt']],
  ['--direct-io', ({ directIo }) => directIo, ['mapped-ram']],
  ['--base', ({ base }) => base, ['stream']],
  ['--compat', ({ compat }) => compat, ['stream', 'multifd', 'libvirt']],
  ['--drop-description', ({ dropDescription }) => dropDescription, ['stream', 'multifd', 'mapped-ram', 'libvirt']],
];

/** @throws UsageError if no form can be chosen, or if options do not fit the form or each other */
export function chooseForm(output: string, options: ConvertOptions): Form {
  const { to, block, json } = options;
  const { path, offset } = parseTarget(output);
  const suffix = Object.keys(suffixes).find((each) => path.endsWith(each));
  const form = to ?? (suffix === undefined ? undefined : suffixes[suffix]);
  if (form === undefined) {
    throw new UsageError(`expected --to ${forms.join('|')}, because the name ${output} does not imply a form`);
  }
  if (form === 'raw' && block === undefined)
    throw new UsageError('expected --block IDSTR: the RAM block of a raw image');
  for (const [option, value, belongsTo] of belongings) {
    if (value(options) === undefined || belongsTo.includes(form)) continue;
    throw new UsageError(`${option} goes with --to ${belongsTo.join(' or ')}, not with ${form}`);
  }
  checkMultifdOptions(form, options);
  if (offset !== undefined && form !== 'stream' && form !== 'mapped-ram') {
    throw new UsageError(`an offset goes with --to stream or mapped-ram, not with ${form}`);
  }
  if (options.libvirtFormat === 'sparse' && options.compat !== undefined) {
    throw new UsageError('--compat does not go with --libvirt-format sparse, which QEMU 9.0 and later load');
  }
  if (json === true && isStandardOutput(output))
    throw new UsageError('expected either --json or the bytes on standard output, got both');
  if (output === '-' && process.stdout.isTTY === true)
    throw new UsageError('expected a pipe or a file for the bytes, got a terminal');
  return form;
}
