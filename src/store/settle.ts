/**
 * settle(file, sink): takes a file's Flow to its end and leaves what is there when everything has arrived.
 * The strict reader: anything that makes content doubtful is thrown, not collected (`verify.ts` collects).
 */
import { originOf, placeIn } from '../io/byte-source.ts';
import type { PageBatch } from '../kernel/page-batch.ts';
import { lostPagesFinding } from '../read/finding-log.ts';
import type { FlowOptions, MigrationFile } from '../read/open.ts';
import type { Configuration, DeviceSection, Section } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { CommandCode } from '../wire/command.ts';

/** Takes RAM in: a store, or a set of raw images. */
export interface RamSink {
  /** A block, before its first pages. */
  addBlock(block: RamBlock): Promise<unknown> | undefined;
  apply(block: RamBlock, batch: PageBatch): Promise<void> | void;
  /** Forgets pages whose content, if there is any, is stale: they come again (postcopy). */
  discard?(block: RamBlock, firstPage: number, pages: number): void;
  /** A page that was discarded and did not come again, if there is one. */
  lostPage?(): { block: RamBlock; page: number } | undefined;
  /** All blocks are known. */
  endBlocks?(blocks: readonly RamBlock[]): void;
  /** What the machine said, before its blocks. */
  configure?(configuration: Configuration): Promise<void> | void;
  /** The RAM section begins, before its blocks. */
  startRam?(section: Readonly<Omit<Section, 'length'>>): void;
  /** Present bits of a mapped-ram block, where only those are read; `firstPage` as in the Flow. */
  takeBitmap?(block: RamBlock, firstPage: number, bits: Uint8Array): Promise<void> | void;
}

/** A SavedVm but for its RAM, which the sink has. */
export type Settled = Omit<SavedVm, 'ram'>;

export interface SettleOptions extends FlowOptions {
  /** Keep the device sections' bodies, or those of some: at most 128 MiB in all. Default false. */
  devices?: boolean | ((device: DeviceSection) => boolean);
  /** The file may hold only what changed since a base: what it has not is no content. Default false. */
  changes?: boolean;
}

const maxDeviceBytes = 128 << 20;
/** Parts of other iterables than RAM. */
const maxIterables = 100_000;

/** @throws MigrationError for the first finding of severity `error`, and where the Flow itself breaks off. */
export async function settle(file: MigrationFile, sink: RamSink, options: SettleOptions = {}): Promise<Settled> {
  const framing = { ramId: undefined as number | undefined, footers: true, switchoverStart: false };
  const iterables: Section[] = [];
  const settled: Settled = {
    ...{ configuration: undefined, devices: [], description: undefined, ignored: [] },
    ...{ iterables, framing },
  };
  const blocks: RamBlock[] = [];
  let deviceBytes = 0;
  const sent = new Set<number>();
  const { devices: wanted = false } = options;
  const isWanted = (device: DeviceSection) => (typeof wanted === 'function' ? wanted(device) : wanted);
  for await (const item of file.flow(options)) {
    switch (item.kind) {
      case 'configuration':
        if (item.configuration.changes !== undefined && options.changes !== true) throw changesOnly(file, item.offset);
        settled.configuration = item.configuration;
        await sink.configure?.(item.configuration);
        break;
      case 'section':
        if (item.section.name !== 'ram' || framing.ramId !== undefined) break;
        framing.ramId = item.section.id;
        sink.startRam?.(item.section);
        break;
      case 'section-end':
        if (item.section.name === 'ram' || item.section.kind === 'full') break;
        if (iterables.length >= maxIterables) throw tooManyParts(file, item.section);
        iterables.push(item.section);
        break;
      case 'command':
        if (item.command.code === CommandCode.switchoverStart) framing.switchoverStart = true;
        break;
      case 'block':
        blocks.push(item.block);
        await sink.addBlock(item.block);
        break;
      case 'blocks-end':
        sink.endBlocks?.(blocks);
        break;
      case 'pages':
        sent.add(item.block.index);
        await sink.apply(item.block, item.batch);
        break;
      case 'discard':
        sink.discard?.(item.block, item.firstPage, item.pages);
        break;
      case 'sync':
        if (item.channels > 0) break;
        throw new MigrationError(
          'unsupported',
          'the pages of a multifd migration are in its channels, which were not given',
          { ...placeIn(file.source, item.offset), section: 'ram' },
        );
      case 'unread-pages':
        throw new MigrationError('unsupported', `pages compressed with ${item.method} are not decoded`, item.place);
      case 'device-packet':
        if (options.devices !== true) break;
        throw new MigrationError(
          'unsupported',
          `the state of ${item.device.name} in multifd packets is not kept`,
          item.place,
        );
      case 'bitmap':
        sent.add(item.block.index);
        await sink.takeBitmap?.(item.block, item.firstPage, item.bits);
        break;
      case 'device':
        if (!isWanted(item.device)) break;
        deviceBytes = countDeviceBytes(file, item.device, deviceBytes);
        settled.devices.push(item.device);
        break;
      case 'description':
        settled.description = item.description;
        break;
      case 'finding':
        if (item.finding.severity === 'error') throw MigrationError.from(item.finding);
        if (item.finding.code === 'no-footers') framing.footers = false;
        break;
      default:
    }
  }
  if (settled.configuration?.capabilities.includes('x-ignore-shared') === true) {
    settled.ignored = blocks.filter(({ index, mapped }) => mapped === undefined && !sent.has(index));
  }
  const lost = sink.lostPage?.();
  if (lost !== undefined) throw MigrationError.from(lostPagesFinding(originOf(file.source), lost.block, lost.page));
  return settled;
}

/** Adds a device's bytes to those that are kept. @throws MigrationError `limit-exceeded` beyond `most` */
export function countDeviceBytes(
  file: MigrationFile,
  { name, offset, data }: DeviceSection,
  before: number,
  most = maxDeviceBytes,
): number {
  const bytes = before + data.length;
  if (bytes <= most) return bytes;
  throw new MigrationError('limit-exceeded', `expected at most ${most} bytes of devices, got ${bytes}`, {
    ...placeIn(file.source, offset),
    section: name,
  });
}

function changesOnly(file: MigrationFile, offset: number): MigrationError {
  const message = 'the file holds only the pages that changed since its base: merge it with that';
  return new MigrationError('changes-only', message, placeIn(file.source, offset));
}

function tooManyParts(file: MigrationFile, { name, offset }: Section): MigrationError {
  const message = `expected at most ${maxIterables} parts of iterables other than RAM`;
  return new MigrationError('limit-exceeded', message, { ...placeIn(file.source, offset), section: name });
}
