/**
 * What the command line suggests for an error or a finding. The library states facts; only the command line knows which
 * option helps, so all hints are in this table.
 */

/** By a finding's code, or by `code:reason` if the fact has a reason. */
const hints: Readonly<Record<string, string>> = {
  'ambiguous-snapshot': 'name the snapshot by its id: IMAGE.qcow2#ID',
  'changes-only': 'merge it with its base: vmferry merge BASE CHANGES OUT',
  'mismatched-source': 'check which files --resume-of and --preempt name',
  'not-a-migration-stream:multifd-channel': 'open the main stream, and give this file with --channel',
  'not-a-migration-stream:recovery-stream': 'name the stream that it resumes with --resume-of',
  'block-ignored':
    'its content is in the file of the memory backend (mem-path): keep that file beside this one, or migrate without x-ignore-shared',
  'channels-missing': 'give every channel of this migration with --channel, once',
  'incomplete-save': 'the save was interrupted: save the guest again',
  'marked-incomplete': 'make it again from a complete file',
  'pages-lost': 'give the capture of the preempt channel with --preempt',
  'pages-unread': 'migrate with a compression that vmferry reads: none, zlib or zstd',
  'sync-mismatch': 'give all channels of this one migration with --channel',
  'sync-missing': 'copy the channel again, and give the channels of this one migration with --channel',
  truncated: 'copy the file again: compare its size with the original',
  'untrusted-bitmap': 'save the guest again: the bitmaps are written when the save ends',
};

/** The properties of a fact that select its hint: a finding, a MigrationError, or any error with a code. */
export interface HintedFact {
  code?: unknown;
  reason?: unknown;
}

/** A suggestion, or undefined if there is none. */
export function hintOf({ code, reason }: HintedFact): string | undefined {
  if (typeof code !== 'string') return undefined;
  const key = `${code}:${String(reason)}`;
  return Object.hasOwn(hints, key) ? hints[key] : Object.hasOwn(hints, code) ? hints[code] : undefined;
}
