/**
 * Judges everything except devices: machine, configuration, RAM blocks, commands and how pages are sent (docs/check.md).
 * Compares them with a dump of the target, or with a file that it saved.
 */

import { type Release, releaseOf } from '../../schema/release.ts';
import type { Finding, FindingCode } from '../../vm/migration-error.ts';
import { changesCapability } from '../../wire/configuration.ts';
import type { BlockFacts, FileFacts } from './check-facts.ts';
import type { CheckLog } from './check-reason.ts';

/** Facts about a target that a dump and a file both have, and those that only a file has. */
export interface TargetStream {
  /** Machine type, if stated. */
  machine: string | undefined;
  /** The file that the target saved, if there is one. */
  file: FileFacts | undefined;
}

/** Judges a file as a whole. */
export function judgeStream(file: FileFacts, target: TargetStream, log: CheckLog): void {
  const isUnread = file.error !== undefined && file.configuration === undefined && file.sections.length === 0;
  if (!isUnread) judgeMachine(file, target, log);
  judgeCapabilities(file, target, log);
  judgeUuid(file, target.file, log);
  judgeFooters(file, target, log);
  judgeCommands(file, target, log);
  judgePages(file, target, log);
  if (target.file === undefined) log.leaveOut('RAM blocks and their sizes: a dump does not list them');
  else judgeBlocks(file, target.file, log);
  for (const finding of file.findings) judgeFinding(finding, log);
  if (file.error !== undefined) judgeFinding(file.error, log);
}

/** Whether the target's QEMU is at least that release; undefined if that is unknown. */
function isAtLeast(target: TargetStream, release: Release): boolean | undefined {
  const ofMachine = releaseOf(target.machine ?? '');
  if (ofMachine !== undefined && ofMachine >= release) return true;
  const { file } = target;
  if (file === undefined) return undefined;
  const sendsSwitchover = file.commands.some(({ name }) => name === 'SWITCHOVER_START');
  if (sendsSwitchover && release <= 1000) return true;
  if (file.configuration?.capabilities.includes('mapped-ram') === true && release <= 900) return true;
  // QEMU 10.0 sends the command with every machine type from 10.0 on.
  const isWhole = file.hasEnd && file.error === undefined && file.multifd === undefined;
  const mayBeOld = ofMachine === undefined || ofMachine >= 1000;
  if (!sendsSwitchover && isWhole && mayBeOld && release >= 1000) return false;
  const hasOldPages = file.compressedPages !== undefined || file.sections.some(({ name }) => name === 'block');
  return hasOldPages && release >= 901 ? false : undefined;
}

function judgeMachine({ configuration, origin }: FileFacts, target: TargetStream, log: CheckLog): void {
  const start = { ...origin, offset: 0 };
  const theirs = target.file?.configuration;
  const sends = target.file === undefined ? undefined : theirs !== undefined;
  if (configuration === undefined) {
    const message = 'the file has no configuration section, and therefore no machine type';
    const advice = 'load it with a machine type before 2.4, or with -global migration.send-configuration=off';
    const release = releaseOf(target.machine ?? '');
    const isOld = release !== undefined && release < 204;
    const effect = sends === true ? 'refused' : sends === false || isOld ? 'note' : 'doubt';
    log.add({ effect, rule: 'configuration', message, advice, place: start });
    return;
  }
  const { machine, place } = configuration;
  if (sends === false) {
    const message = 'the file has a configuration section, which the target does not expect';
    const advice = 'load it without -global migration.send-configuration=off, and with the same machine type';
    log.add({ effect: 'refused', rule: 'configuration', message, advice, place });
    return;
  }
  if (target.machine === undefined) {
    log.leaveOut('the machine type: the target does not state its own');
  } else if (!target.machine.startsWith(machine)) {
    const message = `the file is of machine type ${machine}, the target's is ${target.machine}`;
    const advice = `load it with -M ${machine}`;
    const hint = target.file === undefined ? `${advice}; if you meant that machine, make the dump with it too` : advice;
    log.add({ effect: 'refused', rule: 'machine', message, advice: hint, place });
  } else if (machine !== target.machine) {
    const message = `the file names only "${machine}", the beginning of the machine type ${target.machine}; that is enough`;
    log.add({ effect: 'note', rule: 'machine', message, place });
  }
}

/** Capabilities that must be the same on both sides. */
const formatCapabilities = ['x-ignore-shared', 'mapped-ram'];

function judgeCapabilities({ configuration }: FileFacts, target: TargetStream, log: CheckLog): void {
  if (configuration === undefined) return;
  const { capabilities, place } = configuration;
  const theirs = target.file?.configuration?.capabilities;
  for (const name of capabilities) {
    if (name === changesCapability) {
      const message = 'the file has only the pages that changed since a base; no QEMU loads it';
      log.add({ effect: 'refused', rule: 'capability', message, advice: 'merge it with its base', place });
      continue;
    }
    if (theirs?.includes(name) === true) continue;
    if (!formatCapabilities.includes(name)) {
      const message = `the capability ${name} is unknown: QEMU is not known to list it`;
      log.add({ effect: 'doubt', rule: 'capability', message, place });
    } else if (name === 'mapped-ram' && isAtLeast(target, 900) === false) {
      const message = 'the file is a mapped-ram file, which QEMU before 9.0 cannot read';
      log.add({ effect: 'refused', rule: 'capability', message, place });
    } else {
      const message = `the target needs the capability ${name}${name === 'mapped-ram' ? ' (QEMU 9.0 or newer)' : ''}`;
      const condition = `it has the capability ${name} on`;
      log.add({ effect: 'needed', rule: 'capability', message, advice: switchAdvice(name, true), condition, place });
    }
  }
  for (const name of formatCapabilities) {
    if (theirs?.includes(name) !== true || capabilities.includes(name)) continue;
    const message = `the target saved its own file with the capability ${name}, and must load this one without it`;
    const condition = `it has the capability ${name} off`;
    log.add({ effect: 'needed', rule: 'capability', message, advice: switchAdvice(name, false), condition, place });
  }
}

const switchAdvice = (name: string, on: boolean) =>
  `migrate_set_capability ${name} ${on ? 'on' : 'off'}, before migrate_incoming`;

function judgeUuid({ configuration }: FileFacts, other: FileFacts | undefined, log: CheckLog): void {
  if (configuration?.uuid === undefined) return;
  const { uuid, place } = configuration;
  const theirs = other?.configuration?.uuid;
  const dashed = uuid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  const advice = `load it with -uuid ${dashed}, or without -uuid`;
  if (theirs === uuid) return;
  if (theirs !== undefined) {
    const message = `the file is from the guest with UUID ${dashed}, the target's guest has another UUID`;
    log.add({ effect: 'refused', rule: 'configuration', message, advice, place });
  } else {
    const message = `a target with -uuid must have the UUID ${dashed}`;
    const condition = `it has the UUID ${dashed}, or none`;
    log.add({ effect: 'needed', rule: 'configuration', message, advice, condition, place });
  }
}

function judgeFooters(file: FileFacts, target: TargetStream, log: CheckLog): void {
  const { hasFooters, origin } = file;
  const theirs = target.file?.hasFooters;
  if (hasFooters === undefined || hasFooters === theirs) return;
  const place = file.sections[0]?.place ?? { ...origin, offset: 0 };
  if (theirs !== undefined) {
    const message = hasFooters
      ? "the file's sections have footers, which the target does not expect"
      : "the file's sections have no footers, which the target expects";
    const advice = `load it with -global migration.send-section-footer=${hasFooters ? 'on' : 'off'}`;
    log.add({ effect: 'refused', rule: 'footers', message, advice, place });
  } else if (!hasFooters) {
    const release = releaseOf(target.machine ?? '');
    const isOld = release !== undefined && release < 204;
    const message = "the file's sections have no footers, which a target expects unless its machine type is before 2.4";
    const advice = 'load it with -global migration.send-section-footer=off';
    log.add({ effect: isOld ? 'note' : 'doubt', rule: 'footers', message, advice, place });
  }
}

function judgeCommands({ commands }: FileFacts, target: TargetStream, log: CheckLog): void {
  let hasReturnPath = false;
  for (const { name, place, payloadLength } of commands) {
    if (name === 'OPEN_RETURN_PATH') hasReturnPath = true;
    else if (name === 'PING' && !hasReturnPath) {
      const message = 'a PING without an open return path';
      log.add({ effect: 'refused', rule: 'command', message, place });
    } else if (name === 'SWITCHOVER_START') {
      const isNew = isAtLeast(target, 1000);
      if (isNew === true) continue;
      const message = 'the file has the command SWITCHOVER_START, which QEMU before 10.0 refuses';
      const advice = 'load it with QEMU 10.0 or newer, or save it with -global migration.send-switchover-start=off';
      const effect = isNew === false ? 'refused' : 'needed';
      log.add({ effect, rule: 'command', message, advice, condition: 'it is QEMU 10.0 or newer', place });
    } else if (name === 'POSTCOPY_ADVISE' && payloadLength > 0) {
      const message = 'the file was sent with postcopy: the target needs the capability postcopy-ram';
      const condition = 'it has the capability postcopy-ram on';
      log.add({
        effect: 'needed',
        rule: 'command',
        message,
        advice: switchAdvice('postcopy-ram', true),
        condition,
        place,
      });
    } else if (name === 'ENABLE_COLO') {
      const message = 'the file was sent with COLO: the target needs the capability x-colo';
      const condition = 'it has the capability x-colo on';
      log.add({ effect: 'needed', rule: 'command', message, advice: switchAdvice('x-colo', true), condition, place });
    }
  }
}

function judgePages(file: FileFacts, target: TargetStream, log: CheckLog): void {
  const isNew = isAtLeast(target, 901);
  if (file.compressedPages !== undefined) {
    const effect = isNew === true ? 'refused' : 'needed';
    const message = 'pages are compressed by the capability compress, which QEMU dropped after 9.0';
    const advice = isNew === true ? 'load it with an older QEMU' : switchAdvice('compress', true);
    const condition = 'it has the capability compress on';
    log.add({ effect, rule: 'pages', message, advice, condition, place: file.compressedPages });
  }
  const block = file.sections.find(({ name }) => name === 'block');
  if (block !== undefined) {
    const effect = isNew === true ? 'refused' : 'needed';
    const message = 'the file has disks (capability block), which QEMU dropped after 9.0';
    const condition = 'it is QEMU 9.0 or older';
    log.add({ effect, rule: 'section', message, advice: 'load it with an older QEMU', condition, place: block.place });
  }
  if (file.multifd !== undefined) {
    const message = 'the file is the main stream of a multifd migration: it can be loaded only with its channels';
    const advice = `${switchAdvice('multifd', true)}; as many multifd-channels, and the same multifd-compression`;
    const condition = 'it gets the channels, too';
    log.add({ effect: 'needed', rule: 'pages', message, advice, condition, place: file.multifd });
  }
}

function judgeBlocks(file: FileFacts, target: FileFacts, log: CheckLog): void {
  const ram = file.sections.find(({ name }) => name === 'ram')?.place ?? { ...file.origin, offset: 0 };
  const theirs = new Map(target.blocks.map((block) => [block.idstr, block]));
  const pageSize = target.blocks[0]?.pageSize;
  const [first] = file.blocks;
  const statesBoth = file.statesPageSize && target.statesPageSize;
  if (statesBoth && first !== undefined && pageSize !== undefined && first.pageSize !== pageSize) {
    const message = `the file has pages of ${first.pageSize} bytes, the target has pages of ${pageSize}`;
    log.add({ effect: 'refused', rule: 'page-size', message, place: ram });
  }
  for (const block of file.blocks) judgeBlock(block, theirs.get(block.idstr), { ...ram, block: block.idstr }, log);
  const mine = new Set(file.blocks.map(({ idstr }) => idstr));
  for (const { idstr, usedLength } of target.blocks) {
    if (mine.has(idstr)) continue;
    const message = `the target also has the RAM block ${idstr} (${usedLength} bytes), which the file does not load`;
    log.add({ effect: 'note', rule: 'ram-block', message });
  }
}

function judgeBlock(
  { idstr, usedLength }: BlockFacts,
  theirs: BlockFacts | undefined,
  place: NonNullable<FileFacts['error']>['place'],
  log: CheckLog,
): void {
  if (theirs === undefined) {
    const message = `the target has no RAM block ${idstr} (${usedLength} bytes)`;
    log.add({ effect: 'refused', rule: 'ram-block', message, advice: adviceForBlock(idstr), place });
  } else if (theirs.usedLength !== usedLength) {
    // QEMU resizes firmware tables while loading, up to a limit that only the target knows.
    const isResizable = idstr.startsWith('/rom@');
    const message = `the RAM block ${idstr} has ${usedLength} bytes, the target's has ${theirs.usedLength}`;
    const advice = isResizable ? {} : { advice: adviceForBlock(idstr) };
    const effect = !isResizable ? 'refused' : usedLength > theirs.usedLength ? 'doubt' : 'note';
    log.add({ effect, rule: 'ram-block', message, ...advice, place });
  }
}

function adviceForBlock(idstr: string): string {
  if (idstr.endsWith('.rom')) return 'give the target the same device with the same ROM (romfile=…)';
  if (idstr.endsWith('.vram') || idstr.includes('vga')) return 'give the target the same VGA, with the same vgamem_mb';
  if (/^[0-9a-f]{4}:/.test(idstr)) return 'give the target the same -device at the same address';
  if (idstr.endsWith('.bios') || idstr.startsWith('/rom@'))
    return 'give the target the same firmware (-bios, -machine)';
  return 'give the target the same -m, and memory backends of the same names';
}

/** Defects that QEMU loads nevertheless, and limits of this reader. */
const tolerated: ReadonlySet<FindingCode> = new Set(['untrusted-bitmap', 'incomplete-save', 'pages-lost']);
const ofThisReader: ReadonlySet<FindingCode> = new Set(['unsupported', 'limit-exceeded']);

function judgeFinding({ code, message, place }: Finding, log: CheckLog): void {
  const effect = tolerated.has(code) || ofThisReader.has(code) ? 'doubt' : 'refused';
  const what = ofThisReader.has(code) ? 'cannot be read here' : 'the file is bad';
  const isDump = code === 'not-a-migration-stream' && message.includes('got the output of -dump-vmstate');
  const advice = isDump
    ? { advice: 'this is the output of -dump-vmstate: check the saved file, and use the dump as the target' }
    : {};
  log.add({ effect, rule: 'file', message: `${what}: ${message} [${code}]`, ...advice, place });
}
