/** Compares sections with a target: whether it has the device and loads that version (docs/check.md, "Sections"). */

import { listedStates, unlistedStates } from '../../schema/state-names.ts';
import { SectionQueues } from '../../vm/section-queues.ts';
import type { FileFacts, SectionFacts } from './check-facts.ts';
import { comparePciConfig } from './check-pci.ts';
import { CheckLog } from './check-reason.ts';
import { Budget, StateCheck } from './check-state.ts';
import { judgeVirtio } from './check-virtio.ts';
import type { DumpedState, VmstateDump } from './vmstate-dump.ts';

/** Sections that every target of a machine has, even if the file that it saved does not show them. */
const alwaysKnown: ReadonlySet<string> = new Set(['ram', 'globalstate', 'dirty-bitmap']);

/** Iterables that come with a machine. */
const iterables: ReadonlySet<string> = new Set(['ram', 'dirty-bitmap', 'spapr/htab', 's390-storage_attributes']);

/** Names the instance only where it is not 0. */
const nameOf = ({ name, instanceId }: Pick<SectionFacts, 'name' | 'instanceId'>) =>
  instanceId === 0 ? name : `${name} (instance ${instanceId})`;

/** States of one name in a dump. */
interface Known {
  newest: number;
  oldest: number;
  /** The different ones among them. */
  states: Map<string, DumpedState>;
}

/** The most states of one name that a section is compared with. QEMU has two. */
const maxStates = 16;

/** Judges all sections of a file by the target's dump. */
export function judgeSectionsByDump(file: FileFacts, dump: VmstateDump, log: CheckLog): void {
  const byName = new Map<string, Known>();
  for (const { state } of dump.types) {
    const known = byName.get(state.name) ?? { newest: state.version, oldest: state.minimumVersion, states: new Map() };
    byName.set(state.name, known);
    known.newest = Math.max(known.newest, state.version);
    known.oldest = Math.min(known.oldest, state.minimumVersion);
    known.states.set(JSON.stringify(state), state);
  }
  const budget = new Budget();
  for (const section of file.sections) {
    if (section.state !== undefined) judgeByDump(section, byName, log, budget);
    else if (!iterables.has(section.name) && section.name !== 'block') {
      log.leaveOut(`section ${section.name}: a dump does not list iterables`);
    }
  }
}

function judgeByDump(section: SectionFacts, byName: ReadonlyMap<string, Known>, log: CheckLog, budget: Budget): void {
  const { name, versionId, place, description } = section;
  const described = description?.vmsdName ?? '';
  // The last part of an idstr is the name of the state.
  const vmsdName = described === '' ? lastPart(name) : described;
  const guess = described === '' ? `; its type was guessed from its name, because the file does not describe it` : '';
  const known = byName.get(vmsdName);
  if (known === undefined) {
    judgeUnlisted(section, vmsdName, described === '', log);
    return;
  }
  log.judgedSections++;
  const { newest, oldest, states } = known;
  if (versionId > newest) {
    const message = `${vmsdName} has version ${versionId}, the target knows up to ${newest}${guess}`;
    log.add({ effect: 'refused', rule: 'section-version', message, advice: newerQemu, place });
  } else if (versionId < oldest) {
    const message = `${vmsdName} has version ${versionId}, the target reads ${oldest} and later${guess}`;
    log.add({ effect: 'refused', rule: 'section-version', message, advice: 'load it with an older QEMU', place });
  } else if (description === undefined || described === '') {
    log.leaveOut(`fields of ${name}: the file does not describe them`);
    log.demand('fields', name);
  } else if (section.state?.state === undefined) {
    log.leaveOut(`fields of ${name}: ${misfit}`);
    log.demand('fields', name);
  } else if (states.size > maxStates) {
    const message = `${states.size} types of the dump share the name ${vmsdName} with different fields: too many to compare`;
    log.add({ effect: 'doubt', rule: 'field', message, place });
  } else {
    // Several types may have different states of the same name. The best match counts.
    const logs = [...states.values()].map((state) => {
      const own = new CheckLog();
      new StateCheck(own, section, budget).againstDump(description, state);
      return own;
    });
    const best = logs.reduce((a, b) => (b.weight < a.weight ? b : a));
    log.merge(best);
    judgeVirtio(section, undefined, log);
  }
}

const misfit = 'the description in the file does not fit their bytes';

/** Judges a section whose state is not in the dump. */
function judgeUnlisted({ name, place }: SectionFacts, vmsdName: string, isGuess: boolean, log: CheckLog): void {
  // Every QEMU that has the device type lists its state.
  if (!isGuess && listedStates.has(vmsdName)) {
    const message = `the target's QEMU has no device type with the state ${vmsdName}`;
    const advice = 'save without that device, or load with a QEMU that has it';
    log.add({ effect: 'refused', rule: 'section', message, advice, place });
    return;
  }
  log.leaveOut(`section ${name}: a dump lists the states of device types, and not all others`);
  if (!isGuess && !unlistedStates.has(vmsdName)) log.demand('states', vmsdName);
}

const newerQemu = 'load it with the QEMU that saved it or a newer one, or save it with an older machine type';

/** Judges all sections of a file by a file that the target saved. */
export function judgeSectionsByFile(file: FileFacts, target: FileFacts, log: CheckLog): void {
  const theirs = new SectionQueues(target.sections);
  const places = new Map<string, SectionFacts[]>();
  for (const section of target.sections) {
    const last = lastPart(section.name);
    const known = places.get(last);
    if (known === undefined) places.set(last, [section]);
    else known.push(section);
  }
  const budget = new Budget();
  for (const section of file.sections) {
    const other = theirs.takeOrRepeat(section);
    log.judgedSections++;
    if (other === undefined) judgeMissing(section, places.get(lastPart(section.name)) ?? [], log);
    else judgeByFile(section, other, log, budget);
  }
  const mine = new SectionQueues(file.sections);
  for (const section of target.sections) {
    if (mine.has(section) || alwaysKnown.has(section.name)) continue;
    const message = `the target also has ${nameOf(section)}, which the file does not have: that section keeps its reset state`;
    log.add({ effect: 'note', rule: 'section', message });
  }
}

/** The most sections that are searched for a hint. */
const maxAlike = 1000;

/** The last part of a section's name, which is also the name of its state. */
const lastPart = (name: string) => name.slice(name.lastIndexOf('/') + 1);

/** `alike`: sections of the target with the same last part of the name. */
function judgeMissing(section: SectionFacts, alike: readonly SectionFacts[], log: CheckLog): void {
  const { name, instanceId, place } = section;
  if (alwaysKnown.has(name) || name === 'block') return;
  const near = alike.slice(0, maxAlike);
  const elsewhere = near.find((other) => other.name !== name);
  const others = near.filter((other) => other.name === name).length;
  // A loader also finds devices on a bus by their old name, which lacks the address.
  const isOldName = !name.includes('/') && elsewhere !== undefined;
  let message = `the target has no section ${nameOf(section)}`;
  let advice = `give the target the same -device as the source`;
  if (others > 0) {
    message = `the target has ${others} of ${name}, but none with instance ${instanceId}`;
    advice = name.startsWith('cpu') || name === 'apic' ? 'give the target the same -smp as the source' : advice;
  } else if (elsewhere !== undefined && name.includes('/')) {
    message += `; it has ${elsewhere.name}`;
    advice = 'put the device at the same address: -device NAME,addr=…, in the same order';
  }
  if (name === 'cpu' || name === 'cpu_common') advice = 'give the target the same -smp as the source';
  log.add({ effect: isOldName ? 'doubt' : 'refused', rule: 'section', message, advice, place });
}

function judgeByFile(section: SectionFacts, other: SectionFacts, log: CheckLog, budget: Budget): void {
  const { name, versionId, place, description } = section;
  if (versionId > other.versionId) {
    const message = `${name} has version ${versionId}, the target knows up to ${other.versionId}`;
    log.add({ effect: 'refused', rule: 'section-version', message, advice: newerQemu, place });
    return;
  }
  if (versionId < other.versionId) {
    const message = `${name} has version ${versionId}, the target saves ${other.versionId}; the target's file does not show whether it still reads the older one`;
    const advice = "check the file against the output of the target's -dump-vmstate";
    log.add({ effect: 'doubt', rule: 'section-version', message, advice, place });
  }
  if (section.state === undefined || isSameState(section, other)) return;
  comparePciConfig(section, other, log);
  judgeVirtio(section, other, log);
  if (description === undefined || other.description === undefined) {
    log.leaveOut(`fields of ${name}: they are not described in both files`);
    log.demand('fields', name);
    return;
  }
  if (section.state.state === undefined || other.state?.state === undefined) {
    const which = section.state.state === undefined ? misfit : "the description in the target's file does not fit them";
    log.leaveOut(`fields of ${name}: ${which}`);
    log.demand('fields', name);
    return;
  }
  if (description.vmsdName !== other.description.vmsdName) {
    const message = `${nameOf(section)} has the state ${description.vmsdName}, the target's has ${other.description.vmsdName}`;
    log.add({ effect: 'doubt', rule: 'section', message, place });
  }
  new StateCheck(log, section, budget).againstFile(description, other);
}

/** Whether the target saved the same bytes of the same version, so that it also loads them. */
function isSameState({ state, versionId }: SectionFacts, other: SectionFacts): boolean {
  const [mine, theirs] = [state?.data, other.state?.data];
  if (mine === undefined || theirs === undefined) return false;
  if (versionId !== other.versionId || mine.length !== theirs.length) return false;
  return mine.every((byte, i) => byte === theirs[i]);
}
