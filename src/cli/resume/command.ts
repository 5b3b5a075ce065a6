/** The command `vmferry resume`: its options and its facts. `map.ts` does what --map says, and `serve.ts` what --serve says. */
import type { CliCommand } from '../command.ts';
import { UsageError } from '../exit-codes.ts';
import { addInput, collect } from '../input.ts';
import { addLiveOptions, type LiveOptions, runLive } from '../live/live-command.ts';
import { parseCount } from '../size.ts';
import { resumeMapped } from './map.ts';
import type { MapOptions } from './map-options.ts';
import {
  addServeOptions,
  requireNoCommand,
  type ServeCommandOptions,
  serveExamples,
  serveNotes,
  serveOnly,
  targetOf,
} from './serve-options.ts';

interface ResumeCommandOptions extends LiveOptions, MapOptions, ServeCommandOptions {
  map?: boolean;
}

export function addResume(program: CliCommand): CliCommand {
  const command = addInput(program.command('resume'))
    .summary('run a saved guest before its memory is read')
    .argument('[QEMU_COMMAND...]', 'after --: the QEMU that runs the guest, with the arguments of its machine')
    .description('Runs the guest in FILE at once: its memory is read when the guest needs it.');
  return addLiveOptions(addServeOptions(addMapOptions(command)))
    .describe({ notes, exitCodes, json, examples, rules })
    .action((location: string, words: string[], options: ResumeCommandOptions) =>
      runLive('resume', options, async (live) => {
        if (options.serve === undefined) return resumeMapped(location, words, options, live);
        // --map starts sooner without it.
        const { serve } = await import('./serve.ts');
        return serve(location, options, live);
      }),
    );
}

/** The options of --map. */
function addMapOptions(command: CliCommand): CliCommand {
  return command
    .option('--map', 'let QEMU map FILE, a mapped-ram file, as the guest memory')
    .option('--stream <OUT>', 'with --map: write the small stream to OUT, and print the arguments for QEMU')
    .option('--block <IDSTR>', "with --map: map this RAM block, instead of the machine's RAM (repeatable)", collect)
    .option('--private', 'with --map: run on a reflink or a copy of FILE, which may then change')
    .option('--clones <N>', 'with --map: start N guests; {n} in the arguments is the number of each', parseCount)
    .option(
      '--overlay',
      'with --map: give each guest a qcow2 overlay of each disk that it may write, removed at its end',
    )
    .option('--overlay-dir <DIR>', 'with --overlay: keep the overlays in DIR');
}

const notes = [
  '--map: QEMU 8.2 and later maps the pages of FILE as guest memory, copy on write, and loads only a small stream with everything else. The guest runs as soon as that is loaded. FILE stays as it is.',
  'QEMU_COMMAND is the command that ran the guest when it was saved, without -incoming. The arguments for the memory are added.',
  ...serveNotes,
];

const json = [
  { type: 'ResumeMapJson', when: '--map --stream OUT --json' },
  { type: 'ServeEventJson', when: '--serve --json, one per line' },
];

const exitCodes = {
  1: 'FILE is bad, or not whole',
  2: 'wrong usage: FILE, QEMU or its arguments cannot be used like this',
  3: 'the target failed: it refused the guest, broke off, or was silent for too long',
};

const examples = [
  'vmferry resume guest.mapped-ram --map -- qemu-system-x86_64 -M q35 -m 2G -nographic',
  'vmferry resume guest.mapped-ram --map --stream guest.small',
  ...serveExamples,
];

const rules = {
  needs: {
    ...{ '--stream': ['--map'], '--block': ['--map'], '--private': ['--map'], '--clones': ['--map'] },
    ...{
      '--overlay': ['--map'],
      '--overlay-dir': ['--overlay'],
      '--tls-hostname': ['--tls-creds'],
      '--tls-authz': ['--tls-creds'],
    },
    ...Object.fromEntries(serveOnly.map((flag) => [flag, ['--serve']])),
  },
  excludes: { '--stream': ['--clones', '--overlay'], '--serve': ['--map'] },
  check([, ...command]: readonly string[], options: ResumeCommandOptions) {
    const { map, stream, serve: uri } = options;
    if (uri !== undefined) {
      targetOf(uri, options);
      requireNoCommand(command);
      return;
    }
    if (map !== true) throw new UsageError('expected --map or --serve: how QEMU gets the memory of the guest');
    if (stream === undefined && command.length === 0) {
      throw new UsageError('expected --stream OUT, or -- and the QEMU command to run');
    }
    if (stream !== undefined && command.length > 0) {
      throw new UsageError('expected either --stream or a QEMU command, got both');
    }
  },
};
