/**
 * QEMUs that run on FILE, one or several clones:
 *
 *     check the arguments        nothing has been started yet
 *     lock FILE, or copy it      --private
 *     overlays, new ids          of each clone
 *     start each QEMU            it inherits the lock
 *     small stream to each       while its machine is being set up
 *     wait                       a signal is passed on; the exit code is QEMU's
 */
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { LiveError } from '../../migrate/live-error.ts';
import { resumeArguments } from '../../node.ts';
import { parseLocation } from '../../read/location.ts';
import type { MigrationFile } from '../../read/open.ts';
import { backendId } from '../../tasks/resume/mapped-blocks.ts';
import type { Resume } from '../../tasks/resume/resume-arguments.ts';
import { Interrupted, UsageError } from '../exit-codes.ts';
import type { Live } from '../live/live-command.ts';
import { reportError, warn } from '../messages.ts';
import { numbered, warnOfGeneration, warnOfShared, withNewGeneration } from './clones.ts';
import { requireOwnDisks } from './disks.ts';
import { lockForGuests } from './guest-lock.ts';
import { requireFit } from './machine-fit.ts';
import type { MapOptions } from './map-options.ts';
import { reportStale, tooOld } from './map-words.ts';
import { Overlays } from './overlays.ts';
import { withPrivateCopy } from './private-file.ts';
import { backendsIn, parseOptions, placesBackends, withoutOptions } from './qemu-arguments.ts';
import { missingProperties, RunningQemu, streamUri } from './run-qemu.ts';

/** What is safe to do next, whatever became of the guests. */
const next = 'FILE is as it was: the guest can be resumed from it again';
/** Clones that get the small stream at a time. */
const fedAtOnce = 4;

/** What is to be run. */
interface Job {
  location: string;
  program: string;
  /** The arguments of each QEMU. */
  lines: readonly (readonly string[])[];
  options: MapOptions;
  live: Live;
}

/**
 * Starts the QEMUs, waits for them, and sets the exit code. `old`: whether the program is known to be too old.
 * @throws UsageError before anything runs
 */
export async function runOn(
  location: string,
  file: MigrationFile,
  [program, ...args]: readonly [string, ...string[]],
  options: MapOptions,
  live: Live,
  old: Promise<boolean>,
): Promise<void> {
  const lines = options.clones === undefined ? [args] : numbered(args, options.clones);
  const job = { location, program, lines, options, live };
  const resume = await planFor(job, file);
  for (const line of lines) requireFit(parseOptions(line), resume);
  if (options.overlay !== true) requireOwnDisks(lines.map(parseOptions));
  if (await old) requireProperties(job, resume);
  if (options.private === true) {
    const onCopy = async (copy: MigrationFile, remove: () => void) =>
      run(job, await planFor(job, copy), undefined, remove);
    return withPrivateCopy(location, live, onCopy);
  }
  const lock = lockForGuests(parseLocation(location).path);
  try {
    await run(job, resume, lock);
  } finally {
    closeSync(lock);
  }
}

/** Maps the machine's own RAM, and what the command lines name. */
async function planFor({ lines, options, live }: Job, file: MigrationFile): Promise<Resume> {
  const [path, { signal }] = [resolve(file.input.name), live];
  const plan = await resumeArguments(file, {
    signal,
    path,
    ...(options.block === undefined ? {} : { blocks: options.block }),
  });
  const backends = backendsIn(parseOptions(lines[0] ?? []));
  if (options.block !== undefined || backends.length === 0) return plan;
  const isNamed = (idstr: string) => backends.some(({ id }) => id === backendId(idstr));
  const isOwn = (idstr: string) => plan.mapped.some(({ block, isDefault }) => isDefault && block.idstr === idstr);
  const blocks = plan.blocks.map(({ idstr }) => idstr).filter((idstr) => isNamed(idstr) || isOwn(idstr));
  return blocks.length === 0 ? plan : resumeArguments(file, { signal, path, blocks });
}

/** Runs the QEMUs to their end. `fed` is called when each has its small stream, and therefore the file open. */
async function run(job: Job, resume: Resume, lock: number | undefined, fed = () => {}): Promise<void> {
  const { program, options, live } = job;
  const overlays = options.overlay === true ? new Overlays(options.overlayDir) : undefined;
  const qemus: RunningQemu[] = [];
  const pass = () => {
    const signal = signalOf(live.signal.reason);
    for (const qemu of qemus) qemu.kill(signal);
  };
  live.signal.addEventListener('abort', pass);
  try {
    for (const args of await prepare(job, resume, overlays)) {
      live.signal.throwIfAborted();
      qemus.push(await RunningQemu.start(program, [...args, '-incoming', streamUri], lock));
    }
    if (live.signal.aborted) pass();
    await feedAll(job.location, resume, qemus);
    fed();
    const codes = await Promise.all(qemus.map(({ ended }) => ended));
    live.signal.throwIfAborted();
    judgeEnds(job, resume, codes);
  } catch (error) {
    for (const qemu of qemus) qemu.kill('SIGTERM');
    await Promise.all(qemus.map(({ ended }) => ended));
    throw error instanceof LiveError
      ? error
      : new LiveError('source', next, live.signal.aborted ? live.signal.reason : error);
  } finally {
    live.signal.removeEventListener('abort', pass);
    overlays?.remove();
  }
}

/** The signal that ended the command. */
const signalOf = (reason: unknown): NodeJS.Signals => {
  const number = reason instanceof Interrupted ? reason.exitCode - 128 : 0;
  const found = Object.entries(constants.signals).find(([, each]) => each === number);
  return (found?.[0] as NodeJS.Signals | undefined) ?? 'SIGTERM';
};

/** The arguments of each QEMU, with its disks, its ids and its memory. */
async function prepare({ lines, options }: Job, resume: Resume, overlays: Overlays | undefined): Promise<string[][]> {
  const prepared: string[][] = [];
  for (const [index, line] of lines.entries()) {
    const own = overlays === undefined ? [...line] : await overlays.replace(line, index + 1);
    prepared.push(withMemory(own, resume));
  }
  if (options.clones === undefined) return prepared;
  warnOfShared(prepared);
  const clones = prepared.map(withNewGeneration);
  if (clones.some(({ hasDevice }) => !hasDevice)) warnOfGeneration();
  return clones.map(({ args }) => args);
}

/** The arguments with the mapped blocks in place of the memory backends of these ids. */
function withMemory(args: readonly string[], { arguments: added, mapped }: Resume): string[] {
  const options = parseOptions(args);
  const replaced = backendsIn(options).filter(({ id }) => mapped.some((each) => each.id === id));
  if (replaced.some(({ isShared }) => isShared)) {
    warn('the guest gets memory of its own: vhost-user devices and virtiofs, which need shared memory, do not work');
  }
  const machine = added.indexOf('-machine');
  const own = placesBackends(options) && machine >= 0 ? added.toSpliced(machine, 2) : added;
  const kept = withoutOptions(
    args,
    replaced.map(({ option }) => option),
  );
  return [...kept, ...own];
}

/** Gives each QEMU the small stream, a few at a time. */
async function feedAll(location: string, resume: Resume, qemus: readonly RunningQemu[]): Promise<void> {
  const waiting = [...qemus];
  let hasReported = false;
  const feedSome = async () => {
    for (let qemu = waiting.shift(); qemu !== undefined; qemu = waiting.shift()) {
      await qemu.feed(async (sink) => {
        const { stalePages } = await resume.writeStream(sink);
        if (!hasReported) reportStale(location, stalePages);
        hasReported = true;
      });
    }
  };
  await Promise.all(Array.from({ length: fedAtOnce }, feedSome));
}

/** @throws UsageError if this QEMU cannot run on a file */
function requireProperties({ program, location }: Job, resume: Resume): void {
  const lacks = missingProperties(program);
  if (lacks !== undefined) throw new UsageError(tooOld(location, resume, lacks));
}

/** Passes on the exit code of the first QEMU that failed. @throws UsageError if this QEMU cannot run on a file */
function judgeEnds(job: Job, resume: Resume, codes: readonly number[]): void {
  const { program } = job;
  const index = codes.findIndex((code) => code !== 0);
  if (index < 0) return;
  const code = codes[index] as number;
  // With this code QEMU refuses arguments. Whatever else the command is, it is not run again.
  if (code === 1) requireProperties(job, resume);
  const which = codes.length === 1 ? program : `clone ${index + 1}`;
  process.exitCode = reportError(
    new LiveError('source', next, new UsageError(`${which} ended with exit code ${code}`)),
    code,
  );
}
