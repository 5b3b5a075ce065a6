/**
 * settle(file, sink) reads a file's Flow to its end, and keeps what remains when everything has arrived. It is strict:
 * it throws every finding that makes the content doubtful. (`verify` collects them instead.)
 */
import { originOf, placeIn } from '../io/byte-source.ts';
import { lostPagesFinding } from '../read/finding-log.ts';
import type { FlowOptions, MigrationFile } from '../read/open.ts';
import type { DeviceSection, FlowItem, Section } from '../vm/flow.ts';
import { MigrationError, type Place } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { CommandCode } from '../wire/command.ts';
import type { FlowSink } from './flow-sink.ts';

/** A SavedVm without its RAM, which the sink has taken. */
export interface Settled extends Omit<SavedVm, 'ram'> {
  /** All RAM blocks, as the file lists them. */
  blocks: RamBlock[];
}

/** What {@link settle} keeps and accepts. */
export interface SettleOptions extends FlowOptions {
  /** Keep the bodies of all device sections, or of those for which this returns true: at most 128 MiB. Default false. */
  devices?: boolean | ((device: DeviceSection) => boolean);
  /** Accept a file with only the pages that changed since a base. Default false. */
  changes?: boolean;
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
 * @throws MigrationError for the first finding of severity `error`, for content that cannot be read, for a discarded
 *   page that was not sent again, and for a Flow that breaks off; whatever `sink` throws
 */
export async function settle(file: MigrationFile, sink: FlowSink, options: SettleOptions = {}): Promise<Settled> {
  const settler = new Settler(file, sink, options);
  for await (const item of file.flow(options)) {
    const taken = settler.take(item);
    if (taken !== undefined) await taken;
  }
  return settler.finish();
}

/** What {@link settle} does with each item, for callers whose Flow has other sinks, too. */
export class Settler implements FlowSink {
  readonly #file: MigrationFile;
  readonly #sink: FlowSink;
  readonly #options: SettleOptions;
  readonly #rest: Rest;

  constructor(file: MigrationFile, sink: FlowSink, options: SettleOptions = {}) {
    this.#file = file;
    this.#sink = sink;
    this.#options = options;
    this.#rest = new Rest(file, options);
  }

  /** @throws MigrationError for an item that makes the content doubtful; whatever the sink throws */
  take(item: FlowItem): Promise<void> | void {
    requireReadable(this.#file, item, this.#options);
    this.#rest.take(item);
    return this.#sink.take(item);
  }

  /** Call it when the Flow has ended. @throws MigrationError for a discarded page that was not sent again */
  finish(): Settled {
    const lost = this.#sink.lostPage?.();
    if (lost === undefined) return this.#rest.finish();
    throw MigrationError.from(lostPagesFinding(originOf(this.#file.source), lost.block, lost.page));
  }
}

/** @throws MigrationError for an item that makes the content doubtful, or that stands for unreadable content. */
function requireReadable(file: MigrationFile, item: FlowItem, options: SettleOptions): void {
  const unsupported = (message: string, place: Place) => new MigrationError('unsupported', message, place);
  switch (item.kind) {
    case 'finding':
      if (item.finding.severity === 'error') throw MigrationError.from(item.finding);
      break;
    case 'configuration':
      if (item.configuration.changes === undefined || options.changes === true) break;
      throw new MigrationError(
        'changes-only',
        'the file holds only the pages that changed since its base: merge it with that base',
        placeIn(file.source, item.offset),
      );
    case 'sync':
      if (item.channels > 0) break;
      throw unsupported('the pages of a multifd migration are in its channels, which were not given', {
        ...placeIn(file.source, item.offset),
        section: 'ram',
      });
    case 'unread-pages':
      throw unsupported(`pages compressed with ${item.method} are not decoded`, item.place);
    case 'device-packet':
      if (options.devices !== true) break;
      throw unsupported(`device state in multifd packets, as of ${item.device.name}, cannot be kept`, item.place);
    default:
  }
}

/** Collects all of a VM except its RAM. */
class Rest {
  readonly #file: MigrationFile;
  readonly #options: SettleOptions;
  readonly #framing = { ramId: undefined as number | undefined, footers: true, switchoverStart: false };
  readonly #iterables: Section[] = [];
  readonly #settled: Settled;
  /** Indexes of the blocks that have pages. */
  readonly #sent = new Set<number>();
  #deviceBytes = 0;

  constructor(file: MigrationFile, options: SettleOptions) {
    this.#file = file;
    this.#options = options;
    this.#settled = {
      ...{ configuration: undefined, devices: [], description: undefined, ignored: [], blocks: [] },
      ...{ iterables: this.#iterables, framing: this.#framing },
    };
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

  finish(): Settled {
    const { configuration, blocks } = this.#settled;
    if (configuration?.capabilities.includes('x-ignore-shared') !== true) return this.#settled;
    const ignored = blocks.filter(({ index, mapped }) => mapped === undefined && !this.#sent.has(index));
    return { ...this.#settled, ignored };
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
  file: MigrationFile,
  { name, offset, data }: DeviceSection,
  before: number,
  limit = maxDeviceBytes,
): number {
  const bytes = before + data.length;
  if (bytes <= limit) return bytes;
  throw new MigrationError('limit-exceeded', `expected at most ${limit} bytes of device state, got ${bytes}`, {
    ...placeIn(file.source, offset),
    section: name,
  });
}
