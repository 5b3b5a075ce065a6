/** `vmferry vm`: a VM without processors, driven over QMP like a QEMU. */
import { Option } from 'commander';
import { releaseNames } from '../../schema/release-rules.ts';
import type { CliCommand } from '../command.ts';
import { collect } from '../input.ts';
import { scratchOption } from '../scratch.ts';
import { parseCount, parseSomeBytes } from '../size.ts';
import { parseMisbehaviour } from './misbehave.ts';
import { runVm, type VmOptions } from './process.ts';
import { parseRingSize, parseUuid, parseWorkload } from './specs.ts';

export function addVm(program: CliCommand): CliCommand {
  const command = program
    .command('vm')
    .summary('a VM without processors that migrates, driven over QMP like a QEMU')
    .description(
      'Runs a VM without processors, which is driven over QMP like a QEMU: it migrates, and takes migrations.',
    )
    .requiredOption(
      '--qmp <SOCKET>',
      'where a monitor listens: unix:PATH, tcp:HOST:PORT, fd:N (a socket that listens) or stdio (repeatable)',
      collect,
    )
    .option('--incoming <URI>', 'wait for a migration at this address, or, with defer, for migrate-incoming')
    .option('--load <FILE>', 'the VM in this file, stopped')
    .option('--channel <FILE>', 'with --load: a channel of its multifd migration (repeatable)', collect)
    .addOption(new Option('--machine <TYPE>', 'the machine type (default: none)').choices(['none', 'pc']))
    .option('--memory <SIZE>', 'bytes of RAM (default: 128M)', parseSomeBytes)
    .option('--smp <N>', 'how many virtual processors share the workload (default: 1)', parseCount)
    .option(
      '--ram <FILE>',
      'what RAM contains at first, read when it is needed: FILE must not change while the VM runs; beyond its end RAM is zero',
    )
    .option(
      '--workload <SPEC>',
      'what the guest writes: write:rate=RATE,working-set=SIZE,pattern=counter|random|text|zero,seed=N',
      parseWorkload,
    )
    .option(
      '--dirty-ring-size <PAGES>',
      'give each virtual processor a dirty ring of so many pages, as of KVM, so that its dirty rate can be limited',
      parseRingSize,
    )
    .option('--uuid <UUID>', "the VM's UUID, for validate-uuid", parseUuid)
    .option('--name <NAME>', "the VM's name")
    .option('--paused', 'do not start the guest, as -S of QEMU')
    .option('--drive <SPEC>', 'a disk: id=ID,file=PATH[,format=qcow2|raw] (repeatable)', collect)
    .option(
      '--object <OBJECT>',
      'a QEMU object, TYPE,id=ID,...: TLS credentials, a secret, or a rule of authorization (repeatable)',
      collect,
    )
    .addOption(new Option('--compat <VERSION>', 'the QEMU that it answers like').choices(releaseNames).default('9.0'))
    .option(
      '--misbehave <FAULTS>',
      'misbehave, to test clients: NAME[=VALUE],...,seed=N with the names below',
      parseMisbehaviour,
    )
    .addOption(scratchOption('where to keep RAM that does not fit in memory, and what arrives'));
  return command.describe({ notes, exitCodes, examples, rules }).action((options: VmOptions) => runVm(options));
}

const notes = [
  'A monitor accepts and greets clients when the VM is ready: FILE was read, the listener of --incoming is bound. It talks to one client at a time, as in QEMU; --qmp can be given several times.',
  'What arrives may be any machine: its device states are kept as bytes, and go on with it. It runs if it ran at its source. Without --incoming and --load the VM has one RAM block and no devices.',
  'An incoming migration that fails ends the process with 1, as in QEMU. `quit` ends it with 0.',
  '--misbehave, of the monitor: late-greeting[=TIME] (default 500ms), early-events (before the greeting, and between commands and their answers), split-answers (messages in pieces), late-answers[=TIME] (default 200ms).',
  '--misbehave, of a migration away, when PERCENT of RAM have been sent: fail=PERCENT (its lines break), stall=PERCENT (no byte more until it is cancelled), never-converges[=PERCENT] (a quarter of RAM is dirty after each pass; default 0). The same seed does the same again.',
];

const exitCodes = { 1: 'FILE is bad, or the incoming migration failed' };

const examples = [
  'vmferry vm --qmp unix:/tmp/source.sock --memory 1G --workload write:rate=64M,working-set=32M,pattern=random',
  'vmferry vm --qmp unix:/tmp/target.sock --incoming tcp:127.0.0.1:4444',
  'vmferry vm --qmp unix:/tmp/parked.sock --load guest.migration',
  'vmferry qmp /tmp/source.sock migrate uri=tcp:127.0.0.1:4444',
  'vmferry vm --qmp unix:/tmp/bad.sock --misbehave late-greeting=2s,split-answers,early-events,seed=7',
  'vmferry vm --qmp unix:/tmp/bad.sock --misbehave fail=50',
];

const rules = {
  oneOf: [['--incoming', '--load']],
  needs: { '--channel': ['--load'] },
  excludes: { '--load': ['--memory', '--machine', '--ram'], '--incoming': ['--ram'] },
};
