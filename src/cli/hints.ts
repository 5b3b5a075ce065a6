/**
 * What the command line suggests for an error or a finding. The library states facts; only the command line knows which
 * option helps, so all hints are in this table.
 */

/** By a finding's code, or by `code:reason` if the fact has a reason. */
const hints: Readonly<Record<string, string>> = {
  'ambiguous-snapshot': 'name the snapshot by its id: IMAGE.qcow2#ID',
  'changes-only': 'merge it with its base: vmferry merge BASE CHANGES OUT',
  EMFILE: 'raise the limit of open files with ulimit -n',
  ENOSPC: 'free space there, or name a place with more; --scratch DIR names one for temporary files',
  'mismatched-source': 'check which files --resume-of and --preempt name',
  'missing-channels': 'name each channel with --channel',
  'not-a-migration-stream:multifd-channel': 'open the main stream, and give this file with --channel',
  'not-a-migration-stream:recovery-stream': 'name the stream that it resumes with --resume-of',
  'block-ignored':
    'its content is in the file of the memory backend (mem-path): keep that file beside this one, or migrate without x-ignore-shared',
  'incomplete-save': 'the save was interrupted: save the guest again',
  'marked-incomplete': 'make it again from a complete file',
  'pages-lost': 'give the capture of the preempt channel with --preempt',
  'pages-unread': 'migrate with a compression that vmferry reads: none, zlib or zstd',
  'unknown-interval': 'state how long the guest ran between the files, such as --interval 10s',
  'sync-mismatch': 'give all channels of this one migration with --channel',
  'sync-missing': 'copy the channel again, and give the channels of this one migration with --channel',
  'served-source': 'vmferry resume FILE --map needs no postcopy, and vmferry send without --postcopy neither',
  'served-split': 'go on with vmferry resume FILE --serve URI --recover, at the URI that migrate-recover names',
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
