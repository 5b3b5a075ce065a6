/**
 * settle(file, sink) reads a file's Flow to its end, and keeps what remains when everything has arrived. It is strict:
 * it throws every finding that makes the content doubtful, and evidence that memory is missing. With `partial` it keeps
 * what the file has, and returns that evidence. (`verify` collects all findings instead.)
 */
import { originOf, placeIn } from '../io/byte-source.ts';
import { FindingLog, ignoredFinding, lostPagesFinding } from '../read/finding-log.ts';
import { channelsNotGiven, MissingChannels } from '../read/missing-channels.ts';
import { type FlowOptions, type MigrationFile, requireFile } from '../read/open.ts';
import type { DeviceSection, FlowItem, Section } from '../vm/flow.ts';
import { kindOf } from '../vm/kind-of.ts';
import { type Finding, incompleteCodes, MigrationError, makeFinding } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { CommandCode } from '../wire/command.ts';
import { maxDeviceBody } from '../wire/device-section.ts';
import type { FlowSink } from './flow-sink.ts';

/** A SavedVm without its RAM, which the sink has taken. */
export interface Settled extends Omit<SavedVm, 'ram'> {
  /** All RAM blocks, as the file lists them. */
  blocks: RamBlock[];
  /** With `partial`: the evidence that something is missing, errors first. Otherwise empty. */
  gaps: Finding[];
  /** The section of RAM has ended: the bitmaps of a mapped-ram file were written. */
  hasRamEnd: boolean;
}

/** What {@link settle} keeps and accepts. */
export interface SettleOptions extends FlowOptions {
  /** Keep the bodies of all device sections, or of those for which this returns true: at most 128 MiB. Default false. */
  devices?: boolean | ((device: DeviceSection) => boolean);
  /** Accept a file with only the pages that changed since a base. Default false. */
  changes?: boolean;
  /** Refuse also a file that is cut or damaged where QEMU does not need it: in its VM description. Default false. */
  whole?: boolean;
  /** The blocks whose content is needed. One that the migration left out is an error. Default: all. */
  needs?: (block: RamBlock) => boolean;
  /**
   * Called when all blocks are known, before their pages (in a mapped-ram file, after them). It may throw to end the
   * reading.
   */
  endBlocks?: (blocks: readonly RamBlock[]) => void;
}

const maxDeviceBytes = 128 << 20;
/** The most sections of iterables other than RAM. */
const maxIterables = 100_000;

/**
 * Reads a file to its end. Gives each item to `sink`, and returns everything else that the VM consists of.
 * @throws MigrationError for the first finding of severity `error`, for content that cannot be read, for evidence that
 *   memory is missing, and for a Flow that breaks off; whatever `sink` throws. With `partial`: only if nothing can be
 *   read, or if the files do not belong together
 */
export async function settle(file: MigrationFile, sink: FlowSink, options: SettleOptions = {}): Promise<Settled> {
  requireFile(file);
  if (typeof sink?.take !== 'function')
    throw new TypeError(`expected a sink with the method take, got ${kindOf(sink)}`);
  const settler = new Settler(file, sink, options);
  for await (const item of file.flow(options)) {
    const taken = settler.take(item);
    if (taken !== undefined) await taken;
  }
  return settler.finish();
}

/** Where a Flow comes from: a file, or a live migration. */
export type FlowInput = Pick<MigrationFile, 'source' | 'offset' | 'channels'>;

/** What {@link settle} does with each item, for callers whose Flow has other sinks, too. */
export class Settler implements FlowSink {
  readonly #file: FlowInput;
  readonly #sink: FlowSink;
  readonly #rest: Rest;
  readonly #missingChannels = new MissingChannels();

  constructor(file: FlowInput, sink: FlowSink, options: SettleOptions = {}) {
    this.#file = file;
    this.#sink = sink;
    this.#rest = new Rest(file, options);
  }

  /** @throws MigrationError for an item that makes the content doubtful; whatever the sink throws */
  take(item: FlowItem): Promise<void> | void {
    this.#rest.judge(item);
    this.#missingChannels.take(item);
    this.#rest.take(item);
    return this.#sink.take(item);
  }

  /** What has come so far, if the Flow does not end. */
  get soFar(): Pick<Settled, 'configuration' | 'devices' | 'blocks' | 'framing'> {
    return this.#rest.soFar;
  }

  /** Call it when the Flow has ended. @throws MigrationError for evidence that memory is missing */
  finish(): Settled {
    const rest = this.#rest;
    const sink = this.#sink;
    const origin = originOf(this.#file.source);
    const lost = sink.lostPage?.();
    if (lost !== undefined) rest.miss(lostPagesFinding(origin, lost.block, lost.page));
    const ignored = rest.ignoredBlocks();
    const absentOf = (block: RamBlock) => (ignored.includes(block) ? 0 : sink.absentPages?.(block));
    rest.miss(this.#missingChannels.finding(origin, this.#file.channels, absentOf));
    return rest.finish(ignored);
  }
}

/** Collects all of a VM except its RAM. */
class Rest {
  readonly #file: FlowInput;
  readonly #options: SettleOptions;
  readonly #framing = { ramId: undefined as number | undefined, footers: true, switchoverStart: false };
  readonly #iterables: Section[] = [];
  readonly #settled: Settled;
  /** Indexes of the blocks that have pages. */
  readonly #sent = new Set<number>();
  readonly #gaps = new FindingLog();
  #deviceBytes = 0;

  constructor(file: FlowInput, options: SettleOptions) {
    this.#file = file;
    this.#options = options;
    this.#settled = {
      ...{ configuration: undefined, devices: [], description: undefined, ignored: [], blocks: [] },
      ...{ iterables: this.#iterables, framing: this.#framing, gaps: [] },
      hasRamEnd: false,
    };
  }

  /** @throws MigrationError for an item that makes the content doubtful, or that stands for unreadable content. */
  judge(item: FlowItem): void {
    switch (item.kind) {
      case 'finding':
        this.#judgeFinding(item.finding);
        break;
      case 'sync':
        if (item.channels > 0 || this.#options.partial === true) break;
        // A long read would come to nothing.
        this.miss(channelsNotGiven({ ...placeIn(this.#file.source, item.offset), section: 'ram' }));
        break;
      case 'unread-pages':
        this.miss(makeFinding('pages-unread', `pages compressed with ${item.method} are not decoded`, item.place));
        break;
      case 'device-packet': {
        if (this.#options.devices !== true || this.#options.partial === true) break;
        const message = `device state in multifd packets, as of ${item.device.name}, cannot be kept`;
        throw new MigrationError('unsupported', message, item.place);
      }
      default:
    }
  }

  #judgeFinding(finding: Finding): void {
    if (finding.code === 'changes-only') {
      if (this.#options.changes !== true)
        this.miss({ ...finding, message: `${finding.message}: merge it with that base` });
    } else if (finding.severity === 'error' || incompleteCodes.has(finding.code)) this.miss(finding);
    else if (this.#options.whole === true && finding.code === 'bad-description') this.miss(finding);
  }

  /** Notes that something is missing. @throws MigrationError for it, if the file must be complete */
  miss(finding: Finding | undefined): void {
    if (finding === undefined) return;
    if (this.#options.partial !== true) throw MigrationError.from(finding);
    this.#gaps.add(finding);
  }

  take(item: FlowItem): void {
    switch (item.kind) {
      case 'configuration':
        this.#settled.configuration = item.configuration;
        break;
      case 'section':
        if (item.section.name === 'ram') this.#framing.ramId ??= item.section.id;
        break;
      case 'section-end':
        if (item.section.name === 'ram' && item.section.kind === 'end') this.#settled.hasRamEnd = true;
        this.#addIterable(item.section);
        break;
      case 'command':
        if (item.command.code === CommandCode.switchoverStart) this.#framing.switchoverStart = true;
        break;
      case 'block':
        this.#settled.blocks.push(item.block);
        break;
      case 'blocks-end':
        this.#options.endBlocks?.(this.#settled.blocks);
        break;
      case 'pages':
      case 'bitmap':
        this.#sent.add(item.block.index);
        break;
      case 'device':
        this.#addDevice(item.device);
        break;
      case 'description':
        this.#settled.description = item.description;
        break;
      case 'finding':
        if (item.finding.code === 'no-footers') this.#framing.footers = false;
        break;
      default:
    }
  }

  /** Blocks of shared memory that the migration left out. */
  ignoredBlocks(): readonly RamBlock[] {
    const { configuration, blocks } = this.#settled;
    if (configuration?.capabilities.includes('x-ignore-shared') !== true) return [];
    return blocks.filter(({ index, mapped }) => mapped === undefined && !this.#sent.has(index));
  }

  get soFar(): Settled {
    return this.#settled;
  }

  finish(ignored: readonly RamBlock[]): Settled {
    const { needs = () => true } = this.#options;
    for (const block of ignored.filter(needs)) {
      this.miss(ignoredFinding(placeIn(this.#file.source, this.#file.offset), block));
    }
    return { ...this.#settled, ignored, gaps: this.#gaps.list() };
  }

  #addIterable(section: Section): void {
    const { name, kind, offset } = section;
    if (name === 'ram' || kind === 'full') return;
    if (this.#iterables.length >= maxIterables) {
      const message = `expected at most ${maxIterables} sections of iterables other than RAM`;
      throw new MigrationError('limit-exceeded', message, { ...placeIn(this.#file.source, offset), section: name });
    }
    this.#iterables.push(section);
  }

  #addDevice(device: DeviceSection): void {
    const { devices: wanted = false } = this.#options;
    if (typeof wanted === 'function' ? !wanted(device) : !wanted) return;
    this.#deviceBytes = countDeviceBytes(this.#file, device, this.#deviceBytes);
    this.#settled.devices.push(device);
  }
}

/**
 * Adds the bytes of a device to the number kept `before`. @throws MigrationError `limit-exceeded` if the sum is over
 * `limit`
 */
export function countDeviceBytes(
  file: FlowInput,
  { name, offset, data, omitted = 0 }: DeviceSection,
  before: number,
  limit = maxDeviceBytes,
): number {
  const bytes = before + data.length + omitted;
  if (bytes <= limit && omitted === 0) return bytes;
  throw new MigrationError(
    'limit-exceeded',
    `expected at most ${omitted === 0 ? limit : maxDeviceBody} bytes of device state, got ${bytes}`,
    {
      ...placeIn(file.source, offset),
      section: name,
    },
  );
}
