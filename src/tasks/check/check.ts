/**
 * check: would a target load this file? The target is known by the output of its `-dump-vmstate`, or by a file that it
 * saved. The result lists what neither can show.
 */

import type { Abortable } from '../../io/abort.ts';
import type { MigrationFile } from '../../read/open.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import { emptyFacts, type FileFacts, readFacts } from './check-facts.ts';
import { CheckLog, type CheckReason } from './check-reason.ts';
import { judgeSectionsByDump, judgeSectionsByFile } from './check-sections.ts';
import { judgeStream } from './check-stream.ts';
import type { VmstateDump } from './vmstate-dump.ts';

/** What is known about a target. */
export type CheckTarget =
  | { kind: 'vmstate-dump'; name: string; dump: VmstateDump }
  | { kind: 'file'; name: string; facts: FileFacts };

/**
 * `loads`: nothing speaks against it. `doubtful`: the target may refuse the file, or load something else than was saved.
 * `refused`: the target would not load it.
 */
export type CheckVerdict = 'loads' | 'doubtful' | 'refused';

/** Whether a target would load a file, and why. */
export interface Check {
  /** Name of the file. */
  source: string;
  /** Its machine type, if it states one. */
  machine: string | undefined;
  against: { name: string; kind: CheckTarget['kind']; machine: string | undefined };
  verdict: CheckVerdict;
  /**
   * What must hold for the file to load, as clauses about the target: `it has the capability mapped-ram`. With the verdict
   * `loads` and no condition, nothing that was not judged could make the target refuse.
   */
  conditions: string[];
  /** Worst first. */
  reasons: CheckReason[];
  /** Reasons beyond the first 1,000. */
  reasonsOmitted: number;
  /** What the target's file or dump cannot show, and what was not examined. */
  notJudged: string[];
  /** How many RAM blocks and sections of the file were compared with the target. */
  checked: { blocks: number; sections: number };
}

/**
 * Reads a file, except its pages, and decides whether a target would load it.
 *
 * @example
 * const dump = parseVmstateDump(await readFile('vmstate.json', 'utf8'), { source: 'vmstate.json', coordinate: 'file' });
 * const { verdict, reasons } = await check(await open('guest.migration'), { kind: 'vmstate-dump', name: 'vmstate.json', dump });
 */
export async function check(file: MigrationFile, target: CheckTarget, options: Abortable = {}): Promise<Check> {
  return judge(await readFacts(file, options), target);
}

/**
 * Makes a target of a file that it saved.
 * @throws MigrationError if the file cannot be read to its end, because anything missing would look as if the target lacked it.
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

/** The result for a file that could not be opened. */
export function checkOf(error: MigrationError, target: CheckTarget): Check {
  const { source, coordinate } = error.place;
  return judge({ ...emptyFacts({ source, coordinate }), error: error.toFinding() }, target);
}

/** Judges facts that were read before. */
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
    machine: file.configuration?.machine,
    against: { name: target.name, kind: target.kind, machine },
    verdict: has('refused') ? 'refused' : has('doubt') ? 'doubtful' : 'loads',
    conditions: isDump ? [...log.conditions, sameMachine] : log.conditions,
    reasons,
    reasonsOmitted: log.omitted,
    notJudged: log.notJudged,
    checked: { blocks: isDump ? 0 : file.blocks.length, sections: log.judgedSections },
  };
}

/** No dump shows these. */
const sameMachine = 'it has the same RAM and devices';

const unknownToDumps = [
  'which devices the target has, and how many of each: a dump lists all that its QEMU could have',
  'fields and subsections that depend on properties or the state of a device',
  'the number of elements in arrays',
  'values: ids of PCI devices, features of CPUs, numbers of queues and ports',
];

const unknownToFiles = [
  'values that only the device itself can check',
  'what the target can load but does not save: older versions, and subsections that its guest did not need',
];
