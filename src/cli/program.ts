/** The program with its commands: one file per command. */
import packageJson from '../../package.json' with { type: 'json' };
import { CliCommand } from './command.ts';
import { signalExitCodes } from './exit-codes.ts';
import { helpWidth } from './help.ts';
import { setManner } from './messages.ts';
import { useColour } from './print/format.ts';

type AddCommand = (program: CliCommand) => CliCommand;

const live = new Set(['receive', 'send', 'relay', 'resume']);

/** Whether a command takes part in a migration. Its errors say where the guest is. */
export const isLive = (name: string | undefined): boolean => name !== undefined && live.has(name);

/** How each command is added to a program. Only the requested command is loaded. */
const commands: Record<string, () => Promise<AddCommand>> = {
  inspect: async () => (await import('./inspect.ts')).addInspect,
  verify: async () => (await import('./verify.ts')).addVerify,
  check: async () => (await import('./check.ts')).addCheck,
  extract: async () => (await import('./extract.ts')).addExtract,
  convert: async () => (await import('./convert/command.ts')).addConvert,
  diff: async () => (await import('./diff.ts')).addDiff,
  merge: async () => (await import('./convert/merge.ts')).addMerge,
  read: async () => (await import('./read.ts')).addRead,
  search: async () => (await import('./search.ts')).addSearch,
  estimate: async () => (await import('./estimate.ts')).addEstimate,
  send: async () => (await import('./live/send.ts')).addSend,
  receive: async () => (await import('./live/receive.ts')).addReceive,
  relay: async () => (await import('./live/relay.ts')).addRelay,
  resume: async () => (await import('./resume/command.ts')).addResume,
  qmp: async () => (await import('./qmp/command.ts')).addQmp,
  vm: async () => (await import('./vm/command.ts')).addVm,
  completion: async () => {
    const { addCompletion } = await import('./completion/completion.ts');
    return (program) => addCompletion(program, () => buildProgram());
  },
};

const notes = [
  'FILE is a path, - for standard input, an http:// or https:// URL, or PATH,offset=N for a stream inside a file. It is a stream, a mapped-ram file, a libvirt save image, or one of these compressed with gzip, bzip2, xz, lzop or zstd. DISK.qcow2#SNAPSHOT is the VM state of an internal snapshot; SNAPSHOT is its name or id. ARCHIVE.zip#MEMBER is a file in a zip archive; the multifd channels MEMBER.0, MEMBER.1 and so on beside it are read, too. For any other multifd migration, FILE is the main stream and --channel names each channel.',
  {
    table: [
      ['value', 'examples', 'meaning'],
      ['size, address', '4096, 0x1000, 4 B', 'bytes'],
      ['', '64K, 64Ki, 64KiB; also M, G, T, P', 'powers of 1,024; plain letters as in QEMU'],
      ['', '64kB, 125MB', 'powers of 1,000'],
      ['rate', '128M, 125MB/s, 125MBps, 119MiB/s', 'bytes per second'],
      ['', '1Gb/s, 1Gbit/s, 1Gbps', 'bits per second: powers of 1,000; Gib/s: of 1,024'],
      ['time', '500ms, 2s, 1.5min, 1h', ''],
    ],
  },
  'b means bits and B means bytes. A number without a unit is in the unit that the option names.',
  'NO_COLOR turns colours off. FORCE_COLOR turns them on where the output is not a terminal. COLUMNS sets the width of the help where the output is not a terminal.',
];

const examples = [
  'vmferry inspect guest.migration',
  'vmferry verify guest.migration',
  'vmferry extract guest.migration --block pc.ram -o pc.ram.raw',
  'vmferry convert guest.migration guest.mapped-ram',
  'vmferry diff before.migration after.mapped-ram',
  'vmferry merge base.mapped-ram today.changes today.mapped-ram',
  'vmferry read guest.migration --at 0x7c00 --length 512',
  "vmferry search guest.migration 'Linux version'",
  'vmferry check guest.migration --against target-vmstate.json',
  'vmferry estimate guest.migration --bandwidth 1Gbit/s',
  'vmferry verify main --channel channel0 --channel channel1',
  'vmferry inspect /var/lib/libvirt/qemu/save/guest.save',
  "vmferry verify 'disk.qcow2#before-upgrade'",
  'ssh host cat guest.migration | vmferry verify -',
];

/** In narrow terminals descriptions still wrap in their column, down to this width. */
const minColumn = 10;

/** A program with the command of that name, or with all commands if there is none of that name. */
export async function buildProgram(name?: string): Promise<CliCommand> {
  const program = new CliCommand('vmferry')
    .description('Reads, verifies, extracts, searches and converts QEMU migration streams and mapped-ram files.')
    .version(packageJson.version)
    .exitOverride()
    .showSuggestionAfterError()
    .configureHelp({ minWidthToWrap: minColumn })
    .configureOutput({
      getOutHelpWidth: () => helpWidth(process.stdout),
      getErrHelpWidth: () => helpWidth(process.stderr),
      getOutHasColors: () => useColour(process.stdout),
      getErrHasColors: () => useColour(process.stderr),
      // The error is also thrown, and reported where it is caught.
      outputError: () => {},
    })
    .describe({ notes, examples, exitCodes: signalExitCodes })
    .hook('preAction', (_, command) => {
      const { quiet, json } = command.opts<{ quiet?: boolean; json?: boolean }>();
      const couldBePartial = (command as CliCommand).couldTake('--partial');
      setManner({ quiet: quiet === true, json: json === true, couldBePartial, isLive: isLive(command.name()) });
      (command as CliCommand).checkOptions();
    });
  const isOne = name !== undefined && Object.hasOwn(commands, name);
  for (const load of isOne ? [commands[name]] : Object.values(commands)) {
    const add = await load?.();
    add?.(program).option('-q, --quiet', 'print no progress, notes or warnings on standard error, only errors');
  }
  return program;
}
