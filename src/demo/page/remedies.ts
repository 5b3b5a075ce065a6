/**
 * What to do about each failure and each finding, in the words of the page, and the button that does it. The command line and the
 * library have remedies of their own (docs/findings.md): the page has no options.
 */
import type { FindingCode, FindingReason } from '../../vm/migration-error.ts';
import type { Failure, FailureKind } from '../protocol.ts';

/**
 * - `add`: the user chooses files, which are opened together with those that are open.
 * - `choose`: the user chooses files, which are opened instead.
 * - `retry`: does the same again.
 * - `reload`: loads the page again.
 * - `sections`: goes to the list of sections, if there is one.
 * - `summary`: goes to the summary, if there is one.
 */
type RemedyAction = 'add' | 'choose' | 'retry' | 'reload' | 'sections' | 'summary';

export interface Remedy {
  text: string;
  /** What the button does. Undefined if nothing can be done here. */
  action?: RemedyAction;
  /** What is on the button. */
  label?: string;
}

const copyAgain: Remedy = {
  text: 'Compare the size and the checksum of the file with the original. If they differ, copy the file again.',
  action: 'choose',
  label: 'Choose the file again',
};
const nothing: Remedy = { text: 'Nothing. The page shows the rest of the file.' };
const refused: Remedy = {
  text: 'QEMU refuses the file, too. If the original is sound, copy it again.',
  action: 'choose',
  label: 'Choose the file again',
};
const lastSection: Remedy = {
  text: 'Look at the last section in the list: the damage is there or shortly after. If the original is sound, copy it again.',
  action: 'sections',
  label: 'Show the sections',
};
const addChannels = { action: 'add', label: 'Add its channels' } as const;
const tryAgain = { action: 'retry', label: 'Try again' } as const;

/** The remedies for failures without a code. @internal */
export const failureRemedies: Readonly<Record<Exclude<FailureKind, 'bad-input'>, Remedy>> = {
  'wrong-call': { text: 'Change what the message names, then try again.', ...tryAgain },
  folder: { text: 'Drop the files in it, or choose them.', action: 'choose', label: 'Choose its files' },
  'no-snapshot': { text: 'Choose one of the snapshots in the image.' },
  'unclear-parts': { text: 'Say what each of the files is.' },
  network: {
    text: 'Check that the server is running and allows this page to read from it (CORS). Or download the file and open it here.',
    ...tryAgain,
  },
  'out-of-reach': {
    text: 'Open the URL on the page that can fetch from other servers. Or download the file and open it here.',
    action: 'choose',
    label: 'Choose the downloaded file',
  },
  'no-space': {
    text: "The browser's private storage is full or too small. Free some disk space, then try again. The vmferry command line needs no such storage.",
    ...tryAgain,
  },
  unreadable: {
    text: 'If the file was changed, moved or removed since you chose it, choose it again.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'no-decoder': {
    text: 'The page decompresses gzip, zstd and xz. Decompress the file with the program for its format, then open the result.',
    action: 'choose',
    label: 'Choose the decompressed file',
  },
  'not-loaded': {
    text: 'The page could not load a part of itself. Check that its server is running, then load the page again.',
    action: 'reload',
    label: 'Reload the page',
  },
  unsupported: {
    text: 'The page needs module workers and WebAssembly. Use a current Chromium, Firefox or Safari with both enabled, or the vmferry command line.',
    action: 'reload',
    label: 'Reload the page',
  },
  cancelled: { text: 'You cancelled this.', ...tryAgain },
  internal: {
    text: 'This is a bug in the page, not a problem with the file. Reload the page. The vmferry command line may still read the file.',
    action: 'reload',
    label: 'Reload the page',
  },
};

/** The remedies that are more specific than the code. @internal */
export const reasonRemedies: Readonly<Record<FindingReason, Remedy>> = {
  'multifd-channel': {
    text: 'This is a multifd channel. Open it together with its main stream and the other channels.',
    action: 'add',
    label: 'Add its main stream',
  },
  'recovery-stream': {
    text: 'This stream resumes one that broke off. Open both together.',
    action: 'add',
    label: 'Add the stream that broke off',
  },
  'another-kind': {
    text: 'Choose the file that the migration, the snapshot or the save was written to.',
    action: 'choose',
    label: 'Choose another file',
  },
};

/** The remedies for findings. @internal */
export const findingRemedies: Readonly<Record<FindingCode, Remedy>> = {
  'not-a-migration-stream': {
    text: 'If the stream does not begin at the start of the file, enter its offset. Open a channel or a recovery together with its main stream.',
    action: 'choose',
    label: 'Choose another file',
  },
  'unsupported-version': refused,
  truncated: {
    text: 'Compare the size of the file with the original. If it is smaller, copy it again. The page shows what was read up to there.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'bad-configuration': {
    text: 'Compare the file with the original. If it is sound, report the message to the developers of vmferry.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'unknown-section-type': lastSection,
  'bad-section': lastSection,
  'bad-footer': {
    text: 'Look at that section in the list: the damage is within it. If the original is sound, copy it again.',
    action: 'sections',
    label: 'Show the sections',
  },
  'bad-command': lastSection,
  'bad-package': lastSection,
  'bad-device-section': lastSection,
  'bad-iterable': lastSection,
  'bad-description': {
    text: 'Nothing. RAM and devices come before the description and were read, and a QEMU that loads the file does not need it.',
  },
  'bad-block-list': copyAgain,
  'bad-ram-record': copyAgain,
  'unknown-block': copyAgain,
  'page-out-of-range': refused,
  'bad-zero-page': refused,
  'bad-delta': {
    text: 'The content of that page is lost, unless the page was sent again later. If the original is sound, copy it again.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'bad-channel': {
    text: 'Open every channel of the migration once, together with the main stream.',
    action: 'choose',
    label: 'Choose all its files',
  },
  'bad-packet': {
    text: 'What follows in the channel cannot be read. Compare the channel with the original, and copy it again if they differ.',
    action: 'choose',
    label: 'Choose the files again',
  },
  'missing-channels': {
    text: 'The channels contain the pages of the migration: open every channel once, together with the main stream.',
    ...addChannels,
  },
  'sync-missing': {
    text: 'Compare the size of the channel with the original. If it is smaller, copy it again.',
    action: 'choose',
    label: 'Choose the files again',
  },
  'pages-unread': {
    text: 'The page cannot decompress these pages. Migrate the machine again with zlib or zstd, and open the result.',
    action: 'choose',
    label: 'Choose another file',
  },
  'marked-incomplete': {
    text: 'The file was made from an incomplete one. Make it again from a complete file, and open the result.',
    action: 'choose',
    label: 'Choose another file',
  },
  'sync-mismatch': {
    text: 'Open only the files of one migration together.',
    action: 'choose',
    label: 'Choose the files again',
  },
  'bad-compressed-data': {
    text: 'In the main stream only that page is lost. In a multifd channel everything that follows is lost. If the original is sound, copy it again.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'bad-mapped-ram-header': copyAgain,
  'bad-bitmap': copyAgain,
  'untrusted-bitmap': {
    text: 'Make the snapshot again without mapped-ram. In this file, RAM cannot be told from leftover data.',
    action: 'choose',
    label: 'Choose another file',
  },
  'limit-exceeded': copyAgain,
  'pages-lost': {
    text: 'Open the capture of the preempt channel together with the stream.',
    action: 'add',
    label: 'Add its preempt channel',
  },
  'mismatched-source': {
    text: 'Open each file alone to see what it is. Then open the files that belong together.',
    action: 'choose',
    label: 'Choose the files again',
  },
  'bad-return-path': {
    text: 'The stream itself is not affected. Open it without the return path, or with the capture of the same connection.',
    action: 'choose',
    label: 'Choose the files again',
  },
  'changes-only': {
    text: 'The page cannot show the content of its RAM. Merge the file with its base on the vmferry command line, then open the result.',
    action: 'choose',
    label: 'Choose the merged file',
  },
  'bad-changes': { text: 'Make the file of changes again.', action: 'choose', label: 'Choose another file' },
  'wrong-base': {
    text: 'Find the base whose id the summary of the file of changes states.',
    action: 'summary',
    label: 'Show the summary',
  },
  unsupported: {
    text: 'If the pages are in multifd channels, open the channels together with the main stream. The page cannot read the rest.',
    ...addChannels,
  },
  'order-violation': refused,
  'delta-without-base': { text: 'Do not trust the content of that page: the page before it is assumed to be zero.' },
  'description-mismatch': {
    text: 'Nothing. The footer shows where the device ends, and its state was read.',
  },
  'description-missing': { text: 'Nothing. QEMU loads the file with a warning.' },
  'no-footers': nothing,
  'guessed-boundary': {
    text: 'Do not rely on where the states of devices end. RAM is not affected.',
    action: 'sections',
    label: 'Show the sections',
  },
  'no-ram-end': nothing,
  'pages-absent': {
    text: 'If this is the main stream of a multifd migration, its RAM is in the channels: open them together with it. Otherwise the guest had given these pages back, or their memory is in a file of its own.',
    ...addChannels,
  },
  'zero-data-page': nothing,
  'unknown-capability': { text: 'Nothing, if there are no other findings.' },
  'unaligned-pages': { text: 'Nothing. QEMU loads the file.' },
  'block-ignored': { text: "The content of this block is in the memory's own file, which the page cannot read." },
  'broken-off': { text: 'Nothing. The recovery has the rest.' },
  'return-path-error': { text: 'Read the messages of the destination: it could not load the stream.' },
  'return-path-open': nothing,
  'unknown-section': nothing,
  'bad-libvirt-header': {
    text: 'If you know where the stream begins, cut it out of the image and open it alone. If the original is sound, copy it again.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'incomplete-save': {
    text: 'libvirt refuses the image, since the save was interrupted. If the stream in it is whole, cut it out at the offset in the message and open it alone.',
    action: 'choose',
    label: 'Choose the stream',
  },
  'bad-compression': {
    text: 'The page shows what could be decompressed before the damage. If the original is sound, copy it again.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'bad-archive': {
    text: 'Test the archive with the program that made it. Other files in it may be sound: unpack them and open them alone.',
    action: 'choose',
    label: 'Choose an unpacked file',
  },
  'bad-disk-image': {
    text: 'Check the image with `qemu-img check`. If the original is sound, copy it again.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'unclean-image': {
    text: 'The VM state may still be sound: look at the other findings. If a QEMU uses the image, shut it down and choose the image again.',
    action: 'choose',
    label: 'Choose the file again',
  },
  'ambiguous-snapshot': {
    text: 'Check the name and the date in the summary. If it is the wrong snapshot, open the image again and choose another one.',
    action: 'choose',
    label: 'Choose the image again',
  },
  'no-vm-state': {
    text: 'This snapshot contains no memory. Choose another snapshot or another image.',
    action: 'choose',
    label: 'Choose the image again',
  },
  'bad-vmstate-dump': { text: 'Make the dump again.', action: 'choose', label: 'Choose another file' },
  'trailing-data': { text: 'Nothing, if the stream is meant to be inside a larger file.' },
  'trailing-zeros': nothing,
};

/** The remedy for a code. */
export const remedyFor = (code: FindingCode, reason: FindingReason | undefined): Remedy =>
  reason === undefined ? findingRemedies[code] : reasonRemedies[reason];

/** The remedy for a failure. Undefined for a bad file without a code. */
export function remedyOf({ kind, code, reason }: Pick<Failure, 'kind' | 'code' | 'reason'>): Remedy | undefined {
  if (code !== undefined) return remedyFor(code, reason);
  return kind === 'bad-input' ? undefined : failureRemedies[kind];
}
