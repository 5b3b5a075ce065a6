#!/usr/bin/env node
/** The command line: reads the arguments and hands over to one file per command. */
import { Command, CommanderError } from 'commander';
import packageJson from '../../package.json' with { type: 'json' };
import { ExitCode, handleSignals, idle, isReaderGone, reportError } from './run.ts';

/** What each command is added to a program by. Only the one that is asked for is loaded. */
const commands: Record<string, () => Promise<(program: Command) => void>> = {
  inspect: async () => (await import('./inspect.ts')).addInspect,
  verify: async () => (await import('./verify.ts')).addVerify,
  check: async () => (await import('./check.ts')).addCheck,
  extract: async () => (await import('./extract.ts')).addExtract,
  convert: async () => (await import('./convert/convert.ts')).addConvert,
  diff: async () => (await import('./diff.ts')).addDiff,
  merge: async () => (await import('./convert/merge.ts')).addMerge,
  read: async () => (await import('./read.ts')).addRead,
  search: async () => (await import('./search.ts')).addSearch,
  estimate: async () => (await import('./estimate.ts')).addEstimate,
};

const program = new Command('vmferry')
  .description('Reads, verifies, extracts, searches and converts QEMU migration streams and mapped-ram files.')
  .version(packageJson.version)
  .exitOverride()
  .showSuggestionAfterError()
  .addHelpText(
    'after',
    `
FILE is a path, - for standard input, an http:// or https:// URL, or PATH,offset=N for a stream inside a file. It is a
stream, a mapped-ram file, a libvirt save image, or one of these compressed by gzip, bzip2, xz, lzop or zstd;
DISK.qcow2#SNAPSHOT is the VM state of an internal snapshot, by its name or id. ARCHIVE.zip#MEMBER is a file in a zip
archive; the multifd channels MEMBER.0, MEMBER.1 and so on are found beside it. With --channel for each channel of a
multifd migration, FILE is its main stream.
Exit codes: 0 fine, 1 the input is bad (diff: not the same), 2 usage or tool error, 130 interrupted.

Examples:
  vmferry inspect guest.migration
  vmferry verify guest.migration
  vmferry extract guest.migration --block pc.ram -o pc.ram.raw
  vmferry convert guest.migration guest.mapped-ram
  vmferry diff before.migration after.mapped-ram
  vmferry merge base.mapped-ram today.changes today.mapped-ram
  vmferry read guest.migration --at 0x7c00 --length 512
  vmferry search guest.migration 'Linux version'
  vmferry check guest.migration --against target-vmstate.json
  vmferry estimate guest.migration --bandwidth 1gbps
  vmferry verify main --channel channel0 --channel channel1
  vmferry inspect /var/lib/libvirt/qemu/save/guest.save
  vmferry verify 'disk.qcow2#before-upgrade'
  ssh host cat guest.migration | vmferry verify -`,
  );

const [name = ''] = process.argv.slice(2);
for (const load of Object.hasOwn(commands, name) ? [commands[name]] : Object.values(commands))
  (await load?.())?.(program);

handleSignals();
try {
  await program.parseAsync();
} catch (error) {
  // Commander has printed its own message; help and version are no errors.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? ExitCode.ok : ExitCode.trouble;
  else if (isReaderGone(error)) {
    process.exitCode = ExitCode.ok;
    await idle();
  } else process.exitCode = reportError(error);
}
