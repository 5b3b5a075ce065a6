/**
 * check: would a target load this file? The target is known by the output of its `-dump-vmstate`, or by a file that it
 * saved. What either does not say is not judged, and that is said.
 */

import type { Abortable } from '../../io/abort.ts';
import type { MigrationFile } from '../../read/open.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import { emptyFacts, type FileFacts, readFacts } from './check-facts.ts';
import { CheckLog, type CheckReason } from './check-reason.ts';
import { judgeSectionsByDump, judgeSectionsByFile } from './check-sections.ts';
import { judgeStream } from './check-stream.ts';
import type { VmstateDump } from './vmstate-dump.ts';

/** What is known of a target. */
export type CheckTarget =
  | { kind: 'vmstate-dump'; name: string; dump: VmstateDump }
  | { kind: 'file'; name: string; facts: FileFacts };

/**
 * `loads`: nothing speaks against it. `doubtful`: it may refuse, or load other than what was saved. `refused`: it would
 * not load.
 */
export type CheckVerdict = 'loads' | 'doubtful' | 'refused';

/** Whether a target would load a file, and why. */
export interface Check {
  /** Name of the file. */
  source: string;
  /** Its machine type; null: not stated. */
  machine: string | null;
  against: { name: string; kind: CheckTarget['kind']; machine: string | null };
  verdict: CheckVerdict;
  /** Worst first. */
  reasons: CheckReason[];
  /** Reasons beyond the first 1,000. */
  reasonsOmitted: number;
  /** What the target's file or dump cannot say, or was not looked at. */
  notJudged: string[];
  /** How many RAM blocks and sections of the file were held against the target. */
  checked: { blocks: number; sections: number };
}

/**
 * Reads a file, but for its pages, and says whether a target would load it.
 *
 * @example
 * const dump = parseVmstateDump(await readFile('vmstate.json', 'utf8'), { source: 'vmstate.json', coordinate: 'file' });
 * const { verdict, reasons } = await check(await open('guest.migration'), { kind: 'vmstate-dump', name: 'vmstate.json', dump });
 */
export async function check(file: MigrationFile, target: CheckTarget, options: Abortable = {}): Promise<Check> {
  return judge(await readFacts(file, options), target);
}

/**
 * A file as a target: what it says of the QEMU that saved it.
 * @throws MigrationError if it cannot be read to its end: what is missing in it, the target would seem not to have.
 */
export async function readTarget(
  file: MigrationFile,
  name = file.input.name,
  options: Abortable = {},
): Promise<CheckTarget> {
  const facts = await readFacts(file, options);
  if (facts.error !== undefined) throw MigrationError.from(facts.error);
  return { kind: 'file', name, facts };
}

/** What there is to say of a file that could not even be opened. */
export function checkOf(error: MigrationError, target: CheckTarget): Check {
  const { source, coordinate } = error.place;
  return judge({ ...emptyFacts({ source, coordinate }), error: error.toFinding() }, target);
}

/** The judgement alone. */
export function judge(file: FileFacts, target: CheckTarget): Check {
  const log = new CheckLog();
  const isDump = target.kind === 'vmstate-dump';
  const other = isDump ? undefined : target.facts;
  const machine = isDump ? target.dump.machine : other?.configuration?.machine;
  judgeStream(file, { machine, file: other }, log);
  if (isDump) judgeSectionsByDump(file, target.dump, log);
  else judgeSectionsByFile(file, target.facts, log);
  for (const what of isDump ? unknownToDumps : unknownToFiles) log.leaveOut(what);
  const { reasons } = log;
  const has = (effect: CheckReason['effect']) => reasons.some((reason) => reason.effect === effect);
  return {
    source: file.origin.source,
    machine: file.configuration?.machine ?? null,
    against: { name: target.name, kind: target.kind, machine: machine ?? null },
    verdict: has('refused') ? 'refused' : has('doubt') ? 'doubtful' : 'loads',
    reasons,
    reasonsOmitted: log.omitted,
    notJudged: log.notJudged,
    checked: { blocks: isDump ? 0 : file.blocks.length, sections: log.judgedSections },
  };
}

const unknownToDumps = [
  'which devices, and how many of each, the target has: a dump lists all that its QEMU could have',
  'fields and subsections that depend on properties of a device, or on its state',
  'how many elements arrays have',
  'values: ids of PCI devices, features of virtio devices and CPUs, numbers of queues and ports',
];

const unknownToFiles = [
  'values that only the device knows how to check, such as features of virtio devices and CPUs',
  'what the target can load besides what it saves: older versions, and subsections that its guest did not need',
];
