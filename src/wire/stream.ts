/**
 * The framing of a migration stream (docs/formats/stream.md): header, configuration, sections, commands, EOF and the VM
 * description, as one generator of Flow items. It reads plain streams and mapped-ram files. It asks for bytes only
 * through its `Need`s, so it does not know where they come from.
 */
import type { PageBatch } from '../kernel/page-batch.ts';
import type { Command, Configuration, FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError, makeFinding } from '../vm/migration-error.ts';
import { isPageSize } from '../vm/page-size.ts';
import { SectionQueues } from '../vm/section-queues.ts';
import { type ByteWindow, has, hasSoon, type Need, need } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';
import { CommandCode, decodeCommand, readAdvise } from './command.ts';
import { changesCapability, decodeConfiguration } from './configuration.ts';
import { decodeDeviceBody } from './device-section.ts';
import { type DirtyBitmapState, decodeDirtyBitmaps, makeDirtyBitmapState } from './dirty-bitmap.ts';
import { iterableBodyOf } from './iterable-sections.ts';
import { multifdMagic, multifdVersion } from './multifd-packet.ts';
import { pageSizeOfMachine } from './page-size.ts';
import { readDiscard, readRecvBitmap, spansOf } from './postcopy.ts';
import { makeRamState, type RamState } from './ram-record.ts';
import { decodeRamBody, type RamFormat, ramVersion } from './ram-section.ts';
import { findRamSection, isWithinDamage } from './salvage.ts';
import { decodeFooter, decodeSectionHead, type KnownSection, type SectionHead } from './section.ts';
import { SectionType } from './section-type.ts';
import { type DeviceSizes, decodeDescription } from './vm-description.ts';

export const streamMagic = 0x5145564d;
export const streamVersion = 3;

/** Encodes the magic bytes and the version, the first 8 bytes of every stream. */
export function encodeStreamHeader(out: ByteWriter, version = streamVersion): void {
  out.u32(streamMagic).u32(version);
}

/** The first three bytes of a recovery stream: the command RECV_BITMAP. */
export const recoveryStart = 0x08_000a;
/** Capabilities that change the format and that this decoder supports. */
const knownCapabilities = ['x-ignore-shared', 'mapped-ram', changesCapability];

export interface StreamOptions {
  /** The sizes in the VM description, if it could be read in advance. */
  sizes?: DeviceSizes | undefined;
  /** Whether mapped-ram pages are read, or only their bitmaps. Default `pages`. */
  read?: 'pages' | 'bitmaps';
  /**
   * The stream is the main channel of a multifd migration whose channels were given. The decoder then yields every
   * mark.
   */
  hasChannels?: boolean;
  /** Whether the reading goes on behind damage, see `salvage.ts`. Default false. */
  partial?: boolean;
}

/** What the decoder remembers of a stream. Decoding a recovery stream continues from this state. */
export interface StreamState {
  known: Map<number, KnownSection>;
  footers: boolean | undefined;
  configuration: Configuration | undefined;
  ram: RamState;
  format: RamFormat;
  dirtyBitmaps: DirtyBitmapState;
  /** POSTCOPY_RUN was read. From here on the migration can be recovered if its connection breaks. */
  switchedOver: boolean;
  /** For each block index, the offset up to which POSTCOPY_RAM_DISCARD has discarded. */
  discarded: Map<number, number>;
  /** Sizes by "name instance": one per section of that identity, in stream order. `next` is the first unused one. */
  sizes: SectionQueues<DeviceSizes['devices'][number]>;
  /** How a description that was found at the end of the source contradicts the stream, if it belongs to it. */
  mismatches: Finding[] | undefined;
  batch: PageBatch;
}

/** Decodes a whole stream, from the window's position to the first byte after the stream. */
export function* decodeStream(
  window: ByteWindow,
  batch: PageBatch,
  options: StreamOptions = {},
  state = makeStreamState(batch, options),
): Generator<Need | FlowItem, void> {
  yield* decodeHeader(window);
  if ((yield* has(window, 1)) && window.bytes[window.position] === SectionType.configuration) {
    yield* decodeConfigurationItem(window, state, options);
  }
  yield* decodeItems(window, state, undefined);
  if (!state.switchedOver && (yield* hasSoon(window, 1)) && window.bytes[window.position] === SectionType.description) {
    // A volume may have an older state behind the stream, with a description of its own.
    const isOwn = options.sizes?.offset === undefined || options.sizes.offset === window.offset;
    if (isOwn) for (const finding of state.mismatches ?? []) yield { kind: 'finding', finding };
    yield* decodeDescriptionItem(window, isOwn ? options : {});
  }
  yield { kind: 'end', offset: window.offset };
}

/** Decodes the description. A stream that breaks off in it is whole for QEMU, which loads it. */
function* decodeDescriptionItem(window: ByteWindow, options: StreamOptions): Generator<Need | FlowItem, void> {
  const offset = window.offset;
  window.position += 1;
  try {
    const { description, problems } = yield* decodeDescription(window, options.sizes?.found);
    for (const problem of problems) {
      yield { kind: 'finding', finding: makeFinding('bad-description', problem, window.place(offset)) };
    }
    yield { kind: 'description', description };
    const { incomplete } = description.parsed ?? {};
    if (incomplete === undefined) return;
    const message = `this file was made from an incomplete one: ${incomplete}`;
    yield { kind: 'finding', finding: makeFinding('marked-incomplete', message, window.place(offset)) };
  } catch (error) {
    if (!(error instanceof MigrationError) || error.code !== 'truncated') throw error;
    const message = `the file breaks off in the VM description, which QEMU does not need: ${error.detail}`;
    yield { kind: 'finding', finding: makeFinding('bad-description', message, error.place) };
  }
}

/**
 * Decodes a recovery stream (docs/formats/postcopy.md, "Recovery"): what the source sends over a new connection after
 * the connection of `state` broke. The stream has no header. It reuses the section ids and blocks of the broken stream.
 */
export function* decodeRecovery(window: ByteWindow, state: StreamState): Generator<Need | FlowItem, void> {
  yield* need(window, 1, 'a recovery stream');
  if (window.bytes[window.position] !== SectionType.command) {
    throw new MigrationError(
      'mismatched-source',
      'expected a recovery stream, which begins with commands',
      window.place(),
    );
  }
  // The first page names its block again, and a broken-off END does not count.
  state.ram.current = undefined;
  for (const section of state.known.values()) if (section.name === 'ram') section.latest = 'part';
  yield* decodeItems(window, state, undefined);
  yield { kind: 'end', offset: window.offset };
}

/**
 * Decodes the pages of a checkpoint (COLO): sections of RAM alone, up to and including an EOF. The stream of `state` came
 * before, on the same line.
 */
export function* decodeCheckpoint(window: ByteWindow, state: StreamState): Generator<Need | FlowItem, void> {
  for (const section of state.known.values()) if (section.name === 'ram') section.latest = 'part';
  yield* decodeItems(window, state, undefined);
}

export function makeStreamState(batch: PageBatch, options: StreamOptions = {}): StreamState {
  const ram = makeRamState();
  ram.partial = options.partial === true;
  if (options.sizes?.pageSize !== undefined) ram.pageSize = options.sizes.pageSize;
  return {
    known: new Map(),
    footers: undefined,
    configuration: undefined,
    ram,
    format: {
      mappedRam: false,
      ignoreShared: false,
      advisedPageSizes: undefined,
      pageSizeFrom: options.sizes?.pageSize === undefined ? 'assumed' : 'stream',
      read: options.read ?? 'pages',
      syncAtEos: undefined,
      hasChannels: options.hasChannels === true,
      looksAhead: true,
    },
    dirtyBitmaps: makeDirtyBitmapState(),
    switchedOver: false,
    discarded: new Map(),
    sizes: new SectionQueues(options.sizes?.devices ?? []),
    mismatches: options.sizes?.offset === undefined ? undefined : [],
    batch,
  };
}

function* decodeHeader(window: ByteWindow): Generator<Need | FlowItem, void> {
  const offset = window.offset;
  if (!(yield* has(window, 1))) {
    throw new MigrationError('truncated', 'the file is empty: nothing was saved into it', window.place());
  }
  yield* need(window, 8, 'the stream header');
  const magic = window.view.getUint32(window.position);
  const version = window.view.getUint32(window.position + 4);
  if (magic !== streamMagic) {
    const hex = `0x${magic.toString(16).padStart(8, '0')}`;
    const isChannel = magic === multifdMagic && version === multifdVersion;
    const isRecovery = magic >>> 8 === recoveryStart;
    const reason = isChannel ? 'multifd-channel' : isRecovery ? 'recovery-stream' : undefined;
    const got = reason === undefined ? hex : `${hex}, which starts a ${reason.replace('-', ' ')}`;
    const message = `expected the magic bytes "QEVM", got ${got}`;
    throw new MigrationError('not-a-migration-stream', message, window.place(), reason);
  }
  if (version !== streamVersion) {
    throw new MigrationError(
      'unsupported-version',
      `expected stream version ${streamVersion}, got ${version}`,
      window.place(offset + 4),
    );
  }
  window.position += 8;
  yield { kind: 'header', version, offset };
}

function* decodeConfigurationItem(
  window: ByteWindow,
  state: StreamState,
  options: StreamOptions,
): Generator<Need | FlowItem, void> {
  const offset = window.offset;
  window.position += 1;
  const configuration = yield* decodeConfiguration(window);
  state.configuration = configuration;
  yield { kind: 'configuration', configuration, offset, length: window.offset - offset };
  for (const name of configuration.capabilities) {
    if (knownCapabilities.includes(name)) continue;
    const message = `capability "${name}" is not known to change the format`;
    yield { kind: 'finding', finding: makeFinding('unknown-capability', message, window.place(offset)) };
  }
  if (configuration.changes !== undefined) {
    const message = `this file holds only the pages that changed since a base (${configuration.changes.base})`;
    yield { kind: 'finding', finding: makeFinding('changes-only', message, window.place(offset)) };
  }
  state.format.mappedRam = configuration.capabilities.includes('mapped-ram');
  state.format.ignoreShared = configuration.capabilities.includes('x-ignore-shared');
  state.format.isAvr = /^arduino-/.test(configuration.machine);
  if (configuration.targetPageBits === undefined) {
    const pageSize = pageSizeOfMachine(configuration.machine);
    if (pageSize !== undefined && state.format.pageSizeFrom === 'assumed') {
      state.ram.pageSize = pageSize;
      state.format.pageSizeFrom = 'machine';
    }
    return;
  }
  const pageSize = 2 ** configuration.targetPageBits;
  state.ram.pageSize = pageSize;
  state.format.pageSizeFrom = 'stream';
  if (options.sizes?.pageSize === undefined || options.sizes.pageSize === pageSize) return;
  const message = `the description says ${options.sizes.pageSize} byte pages, the configuration ${pageSize}`;
  yield* reportMismatch(state, makeFinding('description-mismatch', message, window.place(offset)));
}

/** Decodes items up to and including the EOF byte, or up to the end of an embedded stream. */
function* decodeItems(
  window: ByteWindow,
  state: StreamState,
  end: number | undefined,
): Generator<Need | FlowItem, void> {
  while (end === undefined || window.offset < end) {
    const offset = window.offset;
    yield* need(window, 1, 'a section');
    const type = window.bytes[window.position] as number;
    if (type === SectionType.eof && end === undefined) {
      window.position += 1;
      yield* checkRamEnd(window, state, offset);
      yield { kind: 'eof', offset };
      return;
    }
    if (type >= SectionType.start && type <= SectionType.full) {
      if (state.ram.partial) yield* decodeSectionOrSalvage(window, state, end);
      else yield* decodeSection(window, state, end);
    } else if (type === SectionType.command) yield* decodeCommandItem(window, state, end);
    else {
      const expected = end === undefined ? 'a section, a command or EOF' : 'a section or a command';
      const message = `expected ${expected}, got type 0x${type.toString(16).padStart(2, '0')}`;
      const error = new MigrationError('unknown-section-type', message, window.place());
      if (!state.ram.partial) throw error;
      yield* passDamage(window, state, error, offset);
    }
    if (end !== undefined && window.offset > end) {
      const message = `expected the embedded stream to end at ${end}, got an item that ends at ${window.offset}`;
      throw new MigrationError('bad-package', message, window.place(offset));
    }
  }
}

/** Reports a RAM section that never ended. QEMU writes the bitmaps of a mapped-ram file only at its end. */
function* checkRamEnd(window: ByteWindow, state: StreamState, offset: number): Generator<FlowItem, void> {
  for (const section of state.known.values()) {
    if (section.name !== 'ram' || section.latest === 'end') continue;
    const place = { ...window.place(offset), section: 'ram' };
    const finding = state.format.mappedRam
      ? makeFinding('untrusted-bitmap', 'the RAM section never ended, so its bitmaps were never written', place)
      : makeFinding('no-ram-end', 'the RAM section has no end part', place);
    yield { kind: 'finding', finding };
  }
}

function* decodeSection(
  window: ByteWindow,
  state: StreamState,
  end: number | undefined,
): Generator<Need | FlowItem, void> {
  const section = yield* decodeSectionHead(window, state.known, end !== undefined);
  window.section = section.name;
  yield* decodeSectionBody(window, state, section, end);
  window.section = undefined;
}

/** Decodes a section. Behind damage the next section of RAM is found, as long as RAM has not ended. */
function* decodeSectionOrSalvage(
  window: ByteWindow,
  state: StreamState,
  end: number | undefined,
): Generator<Need | FlowItem, void> {
  const start = window.offset;
  try {
    yield* decodeSection(window, state, end);
  } catch (error) {
    yield* passDamage(window, state, error, start);
  }
}

/** Moves on to the next section of RAM. @throws `error` if it is not damage, or if RAM is not there or has ended */
function* passDamage(
  window: ByteWindow,
  state: StreamState,
  error: unknown,
  start: number,
): Generator<Need | FlowItem, void> {
  const ram = [...state.known.entries()].find(([, { name }]) => name === 'ram');
  if (!isWithinDamage(error) || ram === undefined || ram[1].latest === 'end') throw error;
  window.section = undefined;
  yield { kind: 'finding', finding: error.toFinding() };
  if (window.offset === start) window.position += 1;
  if (!(yield* findRamSection(window, state.ram, ram[0]))) {
    throw new MigrationError('truncated', 'the end of RAM is lost', window.place());
  }
}

function* decodeSectionBody(
  window: ByteWindow,
  state: StreamState,
  section: SectionHead,
  end: number | undefined,
): Generator<Need | FlowItem, void> {
  yield { kind: 'section', section };
  const length = () => window.offset - section.offset;
  const passBody = iterableBodyOf(section);
  // QEMU loads a FULL of RAM like a START.
  if (section.name === 'ram') {
    requireRam(window, section);
    yield* decodeRamBody(window, state.ram, state.format, section, state.batch);
  } else if (section.name === 'dirty-bitmap' && section.kind !== 'full') {
    yield* decodeDirtyBitmaps(window, state.dirtyBitmaps);
  } else if (passBody === undefined || (yield* passBody(window, section)) === false) {
    yield* decodeOpaqueBody(window, state, section, end);
    return;
  }
  const hadFooters = state.footers;
  state.footers = yield* decodeFooter(window, section, state.footers, state.known);
  if (hadFooters === undefined && !state.footers) {
    const place = window.place(section.offset);
    yield { kind: 'finding', finding: makeFinding('no-footers', 'sections have no footers', place) };
  }
  yield { kind: 'section-end', section: { ...section, length: length() } };
}

/** Decodes a body whose end must be found, and its footer. */
function* decodeOpaqueBody(
  window: ByteWindow,
  state: StreamState,
  section: SectionHead,
  end: number | undefined,
): Generator<Need | FlowItem, void> {
  const hint = section.kind === 'full' ? takeSize(state, section) : undefined;
  const context = { known: state.known, footers: state.footers, end };
  const { data, size, boundary, footers } = yield* decodeDeviceBody(window, section, context, hint);
  state.footers = footers;
  const place = { ...window.place(section.offset), section: section.name };
  if (hint !== undefined && boundary !== 'description') {
    const message = `the description says ${hint} bytes, the section has ${size}`;
    yield* reportMismatch(state, makeFinding('description-mismatch', message, place));
  }
  const whole = { ...section, length: window.offset - section.offset };
  if (section.kind === 'full') {
    const omitted = data.length === size ? {} : { omitted: size };
    yield { kind: 'device', device: { ...whole, data, boundary, ...omitted } };
  }
  yield { kind: 'section-end', section: whole };
  if (section.kind !== 'start') return;
  const message = `the format of section ${section.name} is not known`;
  yield { kind: 'finding', finding: makeFinding('unknown-section', message, place) };
}

/** Reports that the description contradicts the stream. If it was found elsewhere, the end shows whether it belongs here. */
function* reportMismatch(state: StreamState, finding: Finding): Generator<FlowItem, void> {
  if (state.mismatches === undefined) yield { kind: 'finding', finding };
  else state.mismatches.push(finding);
}

/** The size that the description gives for the next section with this identity. */
function takeSize(state: StreamState, section: SectionHead): number | undefined {
  return state.sizes.take(section)?.size;
}

function requireRam(window: ByteWindow, section: SectionHead): void {
  if (section.versionId === ramVersion && section.instanceId === 0) return;
  const got = `instance ${section.instanceId} version ${section.versionId}`;
  throw new MigrationError('bad-section', `expected "ram" instance 0 version ${ramVersion}, got ${got}`, {
    ...window.place(section.offset),
    section: 'ram',
  });
}

function* decodeCommandItem(
  window: ByteWindow,
  state: StreamState,
  end: number | undefined,
): Generator<Need | FlowItem, void> {
  window.position += 1;
  const command = yield* decodeCommand(window);
  yield { kind: 'command', command };
  switch (command.code) {
    case CommandCode.postcopyAdvise: {
      const advise = readAdvise(command.payload);
      if (advise === undefined) break;
      state.format.advisedPageSizes = advise.pageSizes;
      if (state.format.pageSizeFrom === 'stream' || !isPageSize(Number(advise.targetPageSize))) break;
      if (state.ram.blocks.length > 0) break;
      state.ram.pageSize = Number(advise.targetPageSize);
      state.format.pageSizeFrom = 'stream';
      break;
    }
    case CommandCode.postcopyListen:
      state.ram.postcopy = true;
      break;
    case CommandCode.postcopyRun:
      if (end !== undefined && window.offset !== end) {
        const message = `expected the embedded stream to end with POSTCOPY_RUN, got ${end - window.offset} bytes after it`;
        throw new MigrationError('bad-package', message, window.place(command.offset));
      }
      // The first page names its block again. From here on pages come in the order in which the guest needs them.
      state.ram.current = undefined;
      state.switchedOver = true;
      break;
    case CommandCode.postcopyRamDiscard:
      yield* decodeDiscard(window, state, command);
      break;
    case CommandCode.recvBitmap: {
      const idstr = readRecvBitmap(command.payload);
      if (idstr !== undefined && state.ram.byName.has(idstr)) break;
      const message = `expected the name of a RAM block, got ${idstr === undefined ? 'another payload' : `"${idstr}"`}`;
      throw new MigrationError('mismatched-source', message, window.place(command.offset));
    }
    case CommandCode.packaged: {
      const { payload, offset } = command;
      const length = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
      if (end !== undefined) {
        throw new MigrationError('bad-package', 'expected no package inside a package', window.place(offset));
      }
      yield* decodeItems(window, state, window.offset + length);
      break;
    }
    default:
  }
}

/** Decodes the page ranges of POSTCOPY_RAM_DISCARD. */
function* decodeDiscard(window: ByteWindow, state: StreamState, command: Command): Generator<FlowItem, void> {
  const bad = (message: string) => new MigrationError('bad-command', message, window.place(command.offset));
  const discard = readDiscard(command.payload);
  if (typeof discard === 'string') throw bad(discard);
  const block = state.ram.byName.get(discard.idstr);
  if (block === undefined) throw bad(`a discard of RAM block "${discard.idstr}", which was not listed`);
  const spans = spansOf(discard, block, state.discarded.get(block.index) ?? 0);
  if (spans === undefined) throw bad(`expected ascending ranges of whole pages of RAM block "${block.idstr}"`);
  for (const { firstPage, pages } of spans) {
    yield { kind: 'discard', block, firstPage, pages };
    state.discarded.set(block.index, (firstPage + pages) * block.pageSize);
  }
}
