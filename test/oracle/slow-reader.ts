/**
 * A second, independent reader of migration streams and mapped-ram files: slow, with whole files in memory, and
 * obvious. The tests compare the fast reader with it, so it shares no code with `src/`.
 *
 * Where the format allows a choice, it uses the simplest:
 * - A SECTION_FULL with the name of an iterable is read like its SECTION_START.
 * - A PART or END of a section that began as FULL is allowed; its body ends at its footer.
 * - A START that repeats an id for the same name and instance re-opens the section.
 * - An EOF byte, or another package, inside a package is an error.
 * - The discard ranges of a block ascend, as QEMU sends them. A discarded page that is not sent again is an error.
 * - The preempt channels of a migration in several files are read last.
 * - A configuration subsection of a version other than 1 is an error, because its length is unknown.
 * - If the first section is a device and has no recognizable footer, the stream has no footers.
 * - Without footers and description, a body ends where one of these appears to start: a section with a new id, an EOF
 *   followed by the end or by a VMDESCRIPTION of fitting length, or inside a package a command of the right length.
 * - A cleared bit of a mapped-ram bitmap makes a zero page (1), not an absent one.
 * - A COMPRESS_PAGE counts as a normal page (2).
 */
import {
  commandLengths,
  PACKAGED,
  POSTCOPY_ADVISE,
  POSTCOPY_LISTEN,
  POSTCOPY_RAM_DISCARD,
  POSTCOPY_RUN,
  RECV_BITMAP,
} from './commands.ts';
import { Cursor, SlowReaderError } from './cursor.ts';
import { describedSize, findVmDescription, ItemFinder } from './device-body.ts';
import { iterables, type SlowDirtyBitmap, type SlowDirtyBitmaps } from './iterables.ts';
import { Channels } from './multifd.ts';
import { Ram, type RamBlock, type RamContext, type RecordedDelta } from './ram.ts';

export { SlowReaderError };

interface SlowBlock {
  idstr: string;
  usedLength: number;
  pageSize: number;
  /** `usedLength` bytes; zero where a page is zero or absent. Created on first access. */
  readonly content: Uint8Array;
  /** The kind of each page's last record: 0 absent, 1 zero, 2 normal, 3 xbzrle. */
  readonly last: Uint8Array;
}

interface SlowSection {
  kind: 'start' | 'part' | 'end' | 'full';
  name: string;
  sectionId: number;
  instanceId: number;
  versionId: number;
  /** Offset of the type byte. */
  offset: number;
  /** From the type byte to the end of the footer. */
  length: number;
}

export interface SlowResult {
  format: 'stream' | 'mapped-ram';
  machine: string | undefined;
  capabilities: string[];
  blocks: SlowBlock[];
  sections: SlowSection[];
  vmdescription: unknown | undefined;
  dirtyBitmaps: SlowDirtyBitmap[];
  complete: boolean;
  /** The first offset after the stream. */
  end: number;
}

/**
 * Reads the stream at `offset` of the file `bytes`; `channels` are those of a multifd migration. `pageSize` is for
 * streams that state none.
 * @throws {SlowReaderError} for unreadable data.
 */
export function slowRead(
  bytes: Uint8Array,
  offset = 0,
  channels: readonly Uint8Array[] = [],
  pageSize?: number,
): SlowResult {
  return new StreamReader(bytes, offset, channels, pageSize).read();
}

/**
 * The boundaries of packets and payloads in each channel, by channel number.
 * @throws {SlowReaderError} as slowRead does.
 */
export function channelBoundaries(bytes: Uint8Array, offset: number, channels: readonly Uint8Array[]): number[][] {
  const reader = new StreamReader(bytes, offset, channels);
  reader.read();
  return reader.channels.boundaries();
}

/** A migration in several files: recoveries and preempt channels. */
export interface SlowParts {
  /** The truncated streams before the file, in order; the file is then a recovery stream. */
  resumeOf: Uint8Array[];
  preempt: Uint8Array[];
}

/**
 * Reads a postcopy migration of several files.
 * @throws {SlowReaderError} for unreadable data.
 */
export function slowReadParts(bytes: Uint8Array, { resumeOf, preempt }: SlowParts): SlowResult {
  const reader = new StreamReader(resumeOf[0] ?? bytes, 0);
  for (const [i, file] of [...resumeOf.slice(1), ...(resumeOf.length > 0 ? [bytes] : [])].entries()) {
    reader.expectBreak(i === 0);
    reader.goOn(file);
  }
  const result = resumeOf.length > 0 ? reader.readRecovery() : reader.readStream();
  for (const [i, file] of preempt.entries()) {
    const streams = resumeOf.length + 1;
    const mayBreak = streams > 1 && (preempt.length < streams || i < preempt.length - 1);
    reader.readPreemptChannel(file, mayBreak);
  }
  reader.requireAllPages();
  return { ...result, blocks: reader.blocks() };
}

/**
 * The offsets, ascending, where the items of the stream begin and end, from `offset` to the end of the stream:
 * header, configuration, sections, RAM records, footers, commands, EOF, VMDESCRIPTION, and in a mapped-ram file
 * headers, bitmaps and page areas.
 * @throws {SlowReaderError} as slowRead does.
 */
export function recordBoundaries(bytes: Uint8Array, offset = 0): number[] {
  const reader = new StreamReader(bytes, offset);
  reader.read();
  return [...reader.cursor.boundaries].sort((a, b) => a - b);
}

/**
 * Every XBZRLE record of the stream, in order, with its page before and after.
 * @throws {SlowReaderError} as slowRead does.
 */
export function recordedDeltas(bytes: Uint8Array, offset = 0): RecordedDelta[] {
  const reader = new StreamReader(bytes, offset);
  const deltas: RecordedDelta[] = [];
  reader.ram.onDelta = (recorded) => deltas.push(recorded);
  reader.read();
  return deltas;
}

const EOF = 0x00;
const SECTION_START = 0x01;
const SECTION_PART = 0x02;
const SECTION_END = 0x03;
const SECTION_FULL = 0x04;
const SUBSECTION = 0x05;
const VMDESCRIPTION = 0x06;
const CONFIGURATION = 0x07;
const COMMAND = 0x08;
const FOOTER = 0x7e;

/** The facts that a START or FULL gives about its section id. */
interface Registered {
  name: string;
  instanceId: number;
  versionId: number;
  hasEnded: boolean;
}

class StreamReader {
  cursor: Cursor;
  private machine: string | undefined;
  private readonly capabilities: string[] = [];
  private readonly registered = new Map<number, Registered>();
  private readonly sections: SlowSection[] = [];
  /** Whether sections have footers; undefined before the first section shows it. */
  private hasFooters: boolean | undefined;
  private readonly dirtyBitmaps: SlowDirtyBitmaps = { node: undefined, name: undefined, list: [] };
  private hasRam = false;
  private hasRamEnded = false;
  private isPostcopyRunning = false;
  private readonly ramContext: RamContext;
  readonly ram: Ram;
  readonly channels: Channels;
  private finder: ItemFinder;
  /** The VMDESCRIPTION, found from the end of the file before the stream is read. */
  private readonly description: unknown;

  constructor(bytes: Uint8Array, offset: number, channels: readonly Uint8Array[] = [], pageSize = 4096) {
    this.channels = new Channels(channels);
    this.cursor = new Cursor(bytes, offset);
    this.description = findVmDescription(bytes, offset);
    this.ramContext = {
      pageSize: describedPageSize(this.description) ?? pageSize,
      mappedRam: false,
      ignoreShared: false,
      advisedPageSizes: undefined,
    };
    this.ram = new Ram(this.cursor, this.ramContext);
    if (!this.channels.isEmpty)
      this.ram.onMark = () => this.channels.applyEpoch(this.ram.blocks, this.ramContext.pageSize);
    this.finder = this.makeFinder();
  }

  private makeFinder(): ItemFinder {
    const hasEnded = () => [...this.registered.values()].some((registered) => registered.hasEnded);
    return new ItemFinder(this.cursor, (id) => this.registered.has(id), hasEnded);
  }

  read(): SlowResult {
    const result = this.readStream();
    this.requireAllPages();
    return result;
  }

  /** Requires that every discarded page was sent again. */
  requireAllPages(): void {
    for (const block of this.ram.blocks) {
      const lost = block.lostPages();
      if (lost > 0) throw this.cursor.error(`${lost} pages of "${block.idstr}" are lost`, 0);
    }
  }

  blocks(): SlowBlock[] {
    return this.ram.blocks.map(slowBlock);
  }

  /** Reads a stream that is truncated after the switchover. */
  expectBreak(isFirst: boolean): void {
    try {
      if (isFirst) this.readStream();
      else this.readRecovery();
    } catch (error) {
      if (error instanceof SlowReaderError && error.isEndOfFile && this.isPostcopyRunning) return;
      throw error;
    }
    throw this.cursor.error('a stream that is not truncated');
  }

  /** Continues in another file and keeps everything read so far. */
  goOn(bytes: Uint8Array): void {
    this.cursor = new Cursor(bytes, 0);
    this.ram.cursor = this.cursor;
    this.finder = this.makeFinder();
    this.ram.forgetBlock();
    for (const registered of this.registered.values()) if (registered.name === 'ram') registered.hasEnded = false;
  }

  /** Reads the data of a new connection: items, without a header. */
  readRecovery(): SlowResult {
    const { cursor } = this;
    if (cursor.u8('a recovery') !== COMMAND) throw cursor.error('a recovery that does not begin with a command', 0);
    cursor.at = 0;
    while (this.readItem(false) !== EOF);
    cursor.mark();
    return this.result(undefined);
  }

  readPreemptChannel(bytes: Uint8Array, mayBreak: boolean): void {
    this.goOn(bytes);
    if (!this.isPostcopyRunning) throw this.cursor.error('a preempt channel without postcopy', 0);
    try {
      this.ram.readPreemptChannel();
    } catch (error) {
      if (!(error instanceof SlowReaderError && error.isEndOfFile && mayBreak)) throw error;
    }
  }

  readStream(): SlowResult {
    const { cursor } = this;
    this.readHeader();
    cursor.mark();
    if (cursor.peek() === CONFIGURATION) this.readConfiguration();
    this.ramContext.mappedRam = this.capabilities.includes('mapped-ram');
    this.ramContext.ignoreShared = this.capabilities.includes('x-ignore-shared');

    while (this.readItem(false) !== EOF);
    this.channels.end();
    const vmdescription = this.readVmDescription();
    cursor.mark();
    return this.result(vmdescription);
  }

  private result(vmdescription: unknown): SlowResult {
    return {
      format: this.ramContext.mappedRam ? 'mapped-ram' : 'stream',
      machine: this.machine,
      capabilities: this.capabilities,
      blocks: this.blocks(),
      sections: this.sections,
      vmdescription,
      dirtyBitmaps: this.dirtyBitmaps.list,
      // Without ram's END (a background snapshot), QEMU never wrote the bitmaps of a mapped-ram file.
      complete: this.hasRamEnded || !this.hasRam || !this.ramContext.mappedRam,
      end: this.cursor.at,
    };
  }

  private readHeader(): void {
    const { cursor } = this;
    cursor.mark();
    const at = cursor.at;
    if (cursor.u32('the magic') !== 0x5145564d) throw cursor.error('not a migration stream: no QEVM', at);
    cursor.mark();
    const version = cursor.u32('the version');
    if (version !== 3) throw cursor.error(`stream version ${version}`, at + 4);
  }

  private readConfiguration(): void {
    const { cursor } = this;
    cursor.skip(1, 'CONFIGURATION');
    this.machine = cursor.text(cursor.u32('the machine name'), 'the machine name');
    cursor.mark();
    while (cursor.peek() === SUBSECTION) {
      const at = cursor.at;
      cursor.skip(1, 'a subsection');
      const name = cursor.counted('the name of a subsection');
      const version = cursor.u32('the version of a subsection');
      if (version !== 1) throw cursor.error(`version ${version} of ${name}`, at);
      switch (name) {
        case 'configuration/target-page-bits': {
          const bits = cursor.u32('the target page bits');
          if (bits < 10 || bits > 16) throw cursor.error(`${bits} target page bits`, at);
          this.ramContext.pageSize = 1 << bits;
          break;
        }
        case 'configuration/capabilities': {
          const count = cursor.u32('the number of capabilities');
          for (let i = 0; i < count; i++) this.capabilities.push(cursor.counted('a capability'));
          break;
        }
        case 'configuration/uuid':
          this.channels.checkUuid(Buffer.from(cursor.take(16, 'the UUID')).toString('hex'));
          break;
        default:
          throw cursor.error(`subsection "${name}" of the configuration, of unknown length`, at);
      }
      cursor.mark();
    }
  }

  /** Reads one section, command or EOF and returns its type. */
  private readItem(isPackage: boolean): number {
    const { cursor } = this;
    cursor.mark();
    const at = cursor.at;
    const type = cursor.u8('the type of the next item');
    switch (type) {
      case SECTION_START:
      case SECTION_FULL:
      case SECTION_PART:
      case SECTION_END:
        this.readSection(type, at, isPackage);
        break;
      case COMMAND:
        this.readCommand(at, isPackage);
        break;
      case EOF:
        if (isPackage) throw cursor.error('EOF inside a package', at);
        break;
      default:
        throw cursor.error(`nothing has type 0x${type.toString(16)}`, at);
    }
    cursor.mark();
    return type;
  }

  private readSection(type: number, offset: number, isPackage: boolean): void {
    const { cursor } = this;
    const isNew = type === SECTION_START || type === SECTION_FULL;
    const sectionId = cursor.u32('a section id');
    const registered = isNew ? this.register(sectionId, offset) : this.lookUp(sectionId, offset);
    const { name, instanceId, versionId } = registered;
    cursor.mark();

    const readIterable = iterables.get(name);
    if (name === 'ram') {
      this.ram.readBody(isNew);
      this.hasRam = true;
      if (type === SECTION_END) this.hasRamEnded = true;
      this.readFooter(sectionId);
    } else if (readIterable !== undefined) {
      readIterable(cursor, isNew, this.dirtyBitmaps);
      this.readFooter(sectionId);
    } else {
      // Descriptions cover FULL sections; iterables have none.
      const size = type === SECTION_FULL ? describedSize(this.description, name, instanceId) : undefined;
      this.skipDeviceBody(sectionId, size, isPackage);
      if (this.hasFooters) this.readFooter(sectionId);
    }

    if (type === SECTION_END) registered.hasEnded = true;
    const kinds = { 1: 'start', 2: 'part', 3: 'end', 4: 'full' } as const;
    const kind = kinds[type as keyof typeof kinds];
    this.sections.push({ kind, name, sectionId, instanceId, versionId, offset, length: cursor.at - offset });
  }

  private register(sectionId: number, offset: number): Registered {
    const { cursor } = this;
    const name = cursor.counted('the name of a section');
    const instanceId = cursor.u32('the instance of a section');
    const versionId = cursor.u32('the version of a section');
    if (name === 'ram' && versionId !== 4) throw cursor.error(`version ${versionId} of ram`, offset);
    if (name === 'ram' && instanceId !== 0) throw cursor.error(`instance ${instanceId} of ram`, offset);
    const known = this.registered.get(sectionId);
    if (known !== undefined && (known.name !== name || known.instanceId !== instanceId)) {
      throw cursor.error(`section id ${sectionId} of "${name}" is that of "${known.name}"`, offset);
    }
    const registered = { name, instanceId, versionId, hasEnded: false };
    this.registered.set(sectionId, registered);
    return registered;
  }

  private lookUp(sectionId: number, offset: number): Registered {
    const registered = this.registered.get(sectionId);
    if (registered === undefined) throw this.cursor.error(`section id ${sectionId} has not started`, offset);
    if (registered.hasEnded) throw this.cursor.error(`section id ${sectionId} has already ended`, offset);
    return registered;
  }

  /** Reads the footer after a body that marks its own end. The first one decides for the whole stream. */
  private readFooter(sectionId: number): void {
    const { cursor } = this;
    this.hasFooters ??= cursor.peek() === FOOTER;
    if (!this.hasFooters) return;
    cursor.mark();
    const at = cursor.at;
    if (cursor.u8('a footer') !== FOOTER) throw cursor.error(`section ${sectionId} has no footer`, at);
    const id = cursor.u32('a footer');
    if (id !== sectionId) throw cursor.error(`the footer of section ${sectionId} says ${id}`, at);
  }

  /** Skips to the end of a body without length: to its footer, if sections have one. */
  private skipDeviceBody(sectionId: number, size: number | undefined, isPackage: boolean): void {
    const { cursor, finder } = this;
    const start = cursor.at;
    const described = size === undefined ? undefined : start + size;

    if (this.hasFooters !== false) {
      const isFooterDescribed = described !== undefined && finder.isFooterAt(described, sectionId);
      const footer = isFooterDescribed ? described : finder.footerAfter(start, sectionId, isPackage);
      if (footer !== undefined) {
        this.hasFooters = true;
        cursor.at = footer;
        return;
      }
      if (this.hasFooters) throw cursor.error(`section ${sectionId} has no footer`, start);
      this.hasFooters = false;
    }

    const end = described ?? finder.nextItemAfter(start, isPackage);
    if (end === undefined) throw cursor.error(`nothing follows section ${sectionId}`, start);
    cursor.skip(end - start, `the body of section ${sectionId}`);
  }

  private readCommand(offset: number, isPackage: boolean): void {
    const { cursor } = this;
    const command = cursor.u16('a command');
    const length = cursor.u16('the length of a command');
    if (!commandLengths.has(command)) throw cursor.error(`command ${command}`, offset);
    const lengths = commandLengths.get(command);
    if (lengths !== undefined && !lengths.includes(length)) {
      throw cursor.error(`command ${command} with a payload of ${length} bytes`, offset);
    }
    switch (command) {
      case POSTCOPY_ADVISE:
        if (length === 0) break;
        this.ramContext.advisedPageSizes = cursor.u64('POSTCOPY_ADVISE');
        cursor.skip(8, 'POSTCOPY_ADVISE');
        break;
      case POSTCOPY_LISTEN:
        this.ram.isPostcopy = true;
        break;
      case POSTCOPY_RUN:
        this.isPostcopyRunning = true;
        this.ram.forgetBlock();
        break;
      case POSTCOPY_RAM_DISCARD:
        this.ram.readDiscard(length, offset);
        break;
      case RECV_BITMAP: {
        const name = cursor.take(length, 'the payload of RECV_BITMAP');
        const idstr = Buffer.from(name.subarray(1)).toString('latin1');
        if (name[0] !== length - 1 || !this.ram.blocks.some((block) => block.idstr === idstr)) {
          throw cursor.error('a RECV_BITMAP without a block', offset);
        }
        break;
      }
      case PACKAGED:
        if (isPackage) throw cursor.error('a package inside a package', offset);
        this.readPackage(cursor.u32('the length of a package'));
        break;
      default:
        cursor.skip(length, `the payload of command ${command}`);
    }
  }

  private readPackage(length: number): void {
    const { cursor } = this;
    const start = cursor.skip(length, 'a package');
    const outerLimit = cursor.limit;
    cursor.limit = cursor.at;
    cursor.at = start;
    while (cursor.at < cursor.limit) this.readItem(true);
    cursor.limit = outerLimit;
  }

  private readVmDescription(): unknown {
    const { cursor } = this;
    if (this.isPostcopyRunning || cursor.peek() !== VMDESCRIPTION) return undefined;
    cursor.mark();
    cursor.skip(1, 'the VMDESCRIPTION');
    const json = cursor.take(cursor.u32('the length of the VMDESCRIPTION'), 'the VMDESCRIPTION');
    try {
      return JSON.parse(Buffer.from(json).toString('utf8'));
    } catch {
      return undefined; // QEMU skips it unread.
    }
  }
}

function describedPageSize(vmdescription: unknown): number | undefined {
  const size = (vmdescription as { page_size?: unknown } | undefined)?.page_size;
  return [10, 11, 12, 13, 14, 15, 16].map((bits) => 1 << bits).find((each) => each === size);
}

/** The block as the tests see it; creates the large arrays only on access. */
function slowBlock(block: RamBlock): SlowBlock {
  const { idstr, usedLength, pageSize } = block;
  let content: Uint8Array | undefined;
  let last: Uint8Array | undefined;
  return {
    idstr,
    usedLength,
    pageSize,
    get content() {
      content ??= block.content();
      return content;
    },
    get last() {
      last ??= block.last();
      return last;
    },
  };
}
