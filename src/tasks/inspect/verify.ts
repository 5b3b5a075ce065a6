/**
 * verify: reads a whole file and checks its structure, footers, ids, bounds, deltas, reserved fields, order and
 * completeness. It collects findings. Only a problem that makes the rest unreadable ends the reading.
 *
 * Deltas are checked without a store, because the content of the page does not affect whether a delta decodes.
 */

import { decodeDevice } from '../../devices/device-state.ts';
import type { Abortable } from '../../io/abort.ts';
import { originOf } from '../../io/byte-source.ts';
import { type PageBatch, PageKind } from '../../kernel/page-batch.ts';
import type { CountedFinding } from '../../read/finding-log.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { type FlowSink, readFlow } from '../../store/flow-sink.ts';
import type { VmDescription } from '../../vm/description.ts';
import type { DeviceSection, FlowItem } from '../../vm/flow.ts';
import {
  type Finding,
  type FindingCode,
  incompleteCodes,
  type MigrationError,
  makeFinding,
  type Place,
  type Verdict,
  verdictOf,
} from '../../vm/migration-error.ts';
import { pagePlace } from '../../vm/page-place.ts';
import type { RamBlock } from '../../vm/ram-block.ts';
import { CommandCode } from '../../wire/command.ts';
import { readDeviceSizes } from '../../wire/vm-description.ts';
import { type BlockStats, FlowStats } from './flow-stats.ts';
import { readReturnPath } from './return-path.ts';

/** The verdict on a file, and the findings. */
export interface Verification {
  source: string;
  format: 'stream' | 'mapped-ram';
  /** Whether the file is sound, and whether memory is missing. */
  verdict: Verdict;
  /** Whether the verdict is `ok`: the file can be loaded, and its RAM is all there. */
  ok: boolean;
  /** The machine type, if the stream states it. */
  machine: string | undefined;
  /** Bytes of RAM in all blocks. */
  ramBytes: number;
  /** Page records read, in all passes. */
  pageRecords: number;
  sections: number;
  /** Bytes of the stream, if its end was reached. */
  length: number | undefined;
  findings: CountedFinding[];
}

/** How a file is verified. */
export interface VerifyOptions extends Abortable {
  /** Sees each item of the Flow after it was checked. */
  watch?: (item: FlowItem) => Promise<void> | void;
}

/**
 * Reads a whole file and checks every record, delta, footer and device section. Does not throw for bad data: it
 * reports findings.
 */
export async function verify(file: MigrationFile, options: VerifyOptions = {}): Promise<Verification> {
  return whileAllowed(options, [file], () => verifyFile(file, options));
}

async function verifyFile(file: MigrationFile, { watch }: VerifyOptions): Promise<Verification> {
  const verifier = new Verifier(file);
  const watcher: FlowSink[] = watch === undefined ? [] : [{ take: watch }];
  const error = await readFlow(file, [verifier, ...watcher]);
  verifier.finish(error);
  if (error === undefined) {
    for (const source of file.parts.returnPath) await readReturnPath(file, source, verifier.stats);
  }
  return verifier.report();
}

/** The result for a file that could not be opened. */
export function verificationOf(error: MigrationError): Verification {
  return {
    source: error.place.source,
    format: 'stream',
    verdict: verdictOf([error.toFinding()]),
    ok: false,
    machine: undefined,
    ramBytes: 0,
    pageRecords: 0,
    sections: 0,
    length: undefined,
    findings: [{ ...error.toFinding(), count: 1 }],
  };
}

/** A device section without its body. */
type SeenDevice = Pick<DeviceSection, 'name' | 'instanceId' | 'versionId' | 'offset' | 'boundary'> & {
  size: number;
  /** With its body, as long as the limit allows. */
  section: DeviceSection | undefined;
};

/** The most device sections that are compared with the description; more are only counted. */
const maxDevices = 100_000;
/** The most bytes of bodies that are kept for that. */
const maxBodies = 32 << 20;

/** Checks the items of a Flow. It also checks what the statistics do not cover. */
export class Verifier implements FlowSink {
  readonly stats: FlowStats;
  readonly #file: MigrationFile;
  readonly #devices: SeenDevice[] = [];
  #bodies = 0;
  #ended = false;
  #postcopy = false;

  constructor(file: MigrationFile) {
    this.#file = file;
    this.stats = new FlowStats(originOf(file.source));
  }

  take(item: FlowItem): void {
    if (item.kind === 'pages') this.#checkPages(item.block, item.batch);
    else if (item.kind === 'section') this.#checkOrder(item.section);
    else if (item.kind === 'command') this.#postcopy ||= item.command.code === CommandCode.postcopyListen;
    else if (item.kind === 'device') this.#takeDevice(item.device);
    this.stats.take(item);
  }

  /** Adds findings that are known only at the end, or the error that ended the Flow early. */
  finish(error: Finding | undefined): void {
    if (error === undefined) {
      this.#checkEnd();
      return;
    }
    this.stats.findings.add(error);
    // A file that breaks off is sound up to there. What it lacks is known.
    if (incompleteCodes.has(error.code)) this.#noteAbsent(error.place.offset);
  }

  /** The result. */
  report(): Verification {
    const { stats } = this;
    const findings = stats.findings.list();
    const verdict = verdictOf(findings);
    return {
      source: this.#file.source.name,
      format: stats.format,
      verdict,
      ok: verdict === 'ok',
      machine: stats.configuration?.machine,
      ramBytes: stats.totalBytes,
      pageRecords: stats.records.reduce((sum, { records }) => sum + records, 0),
      sections: stats.sections.length + stats.sectionsOmitted,
      length: stats.end === undefined ? undefined : stats.end - this.#file.offset,
      findings,
    };
  }

  #checkEnd(): void {
    const { stats } = this;
    const { parsed } = stats.description ?? {};
    const isOnlyMark = parsed?.incomplete !== undefined && parsed.devices.length === 0;
    if (parsed !== undefined && !isOnlyMark) this.#checkDescription(parsed);
    else if (stats.description === undefined && !this.#postcopy)
      this.#add('description-missing', 'no VM description', this.#place(stats.end ?? 0));
    stats.noteMissingChannels(this.#file.channels);
    this.#noteAbsent(stats.end ?? 0);
  }

  /** Counts the pages that were not sent up to an offset. */
  #noteAbsent(offset: number): void {
    const { stats } = this;
    for (const block of stats.blocks) {
      if (stats.format === 'mapped-ram' || stats.isIgnored(block)) continue;
      const absent = stats.countPages(block).absent - stats.countLost(block);
      if (absent === 0) continue;
      const place = { ...this.#place(offset), section: 'ram', block: block.block.idstr };
      stats.findings.add(makeFinding('pages-absent', 'pages that were never sent', place), absent);
    }
  }

  #place(offset: number): Place {
    return { ...this.stats.origin, offset };
  }

  #add(code: FindingCode, message: string, place: Place): void {
    this.stats.findings.add(makeFinding(code, message, place));
  }

  #checkPages(block: RamBlock, batch: PageBatch): void {
    const zeroPages = this.#file.pageSlots.markZeroPages(batch, block.pageSize);
    if (zeroPages !== undefined) this.#reportZeroPages(block, batch, zeroPages);
    this.#checkDeltas(block, batch);
  }

  #checkDeltas(block: RamBlock, batch: PageBatch): void {
    const { kernel, sources, lengths, results } = this.#file.pageSlots;
    const { states } = this.stats.blocks[block.index] as BlockStats;
    const deltas: number[] = [];
    for (let i = 0; i < batch.count; i++) {
      if (batch.kind[i] !== PageKind.delta) continue;
      sources[deltas.length] = batch.data[i] as number;
      lengths[deltas.length] = batch.length[i] as number;
      deltas.push(i);
      if (states.get(batch.page[i] as number) !== PageKind.absent) continue;
      const message = 'an XBZRLE delta for a page that was never sent';
      this.stats.findings.add(this.#pageFinding('delta-without-base', message, block, batch, i));
    }
    if (deltas.length === 0) return;
    const { pageSize } = block;
    const failures = kernel.xbzrleCheckBatch(
      sources.byteOffset,
      lengths.byteOffset,
      deltas.length,
      pageSize,
      results.byteOffset,
    );
    if (failures === 0) return;
    deltas.forEach((record, i) => {
      const fault = kernel.xbzrleFault(results[i] as number);
      if (fault === undefined) return;
      const message = `an XBZRLE delta does not decode: ${fault}`;
      this.stats.findings.add(this.#pageFinding('bad-delta', message, block, batch, record));
    });
  }

  #reportZeroPages(block: RamBlock, batch: PageBatch, zeroPages: Uint8Array): void {
    const count = zeroPages.reduce((sum, mark) => sum + mark, 0);
    const message = 'zero pages that were sent in full';
    const first = this.#pageFinding('zero-data-page', message, block, batch, zeroPages.indexOf(1));
    const last = pagePlace(block, batch, zeroPages.lastIndexOf(1));
    this.stats.findings.add(first, count, last);
  }

  #pageFinding(code: FindingCode, message: string, block: RamBlock, batch: PageBatch, record: number): Finding {
    return makeFinding(code, message, pagePlace(block, batch, record));
  }

  /** All iterables end together: no START or PART comes after an END, except in postcopy. */
  #checkOrder(section: { kind: string; name: string; offset: number }): void {
    if (section.kind === 'end') this.#ended = true;
    else if (this.#ended && !this.#postcopy && (section.kind === 'start' || section.kind === 'part')) {
      const place = { ...this.#place(section.offset), section: section.name };
      this.#add('order-violation', `a ${section.kind} of ${section.name} after sections have ended`, place);
    }
  }

  #takeDevice(device: DeviceSection): void {
    const { name, instanceId, versionId, offset, boundary, data, omitted } = device;
    if (this.#devices.length < maxDevices) {
      const isKept = omitted === undefined && this.#bodies + data.length <= maxBodies;
      if (isKept) this.#bodies += data.length;
      const section = isKept ? device : undefined;
      this.#devices.push({ name, instanceId, versionId, offset, boundary, size: omitted ?? data.length, section });
    }
    const place = { ...this.#place(offset), section: name };
    if (boundary === 'guess') this.#add('guessed-boundary', `the end of ${name} was guessed`, place);
  }

  /** Compares names, versions and sizes of all devices with the description. */
  #checkDescription(description: VmDescription): void {
    const described = readDeviceSizes(description);
    const count = Math.max(this.#devices.length, described.devices.length);
    for (let i = 0; i < count; i++) {
      const seen = this.#devices[i];
      const expected = described.devices[i];
      if (seen === undefined || expected === undefined) {
        const message = `the file has ${this.#devices.length} device sections, the description ${described.devices.length}`;
        this.#add('description-mismatch', message, this.#place(seen?.offset ?? this.stats.description?.offset ?? 0));
        return;
      }
      const place = { ...this.#place(seen.offset), section: seen.name };
      if (seen.name !== expected.name || seen.instanceId !== expected.instanceId) {
        const message = `expected ${expected.name} #${expected.instanceId} by the description, got ${seen.name} #${seen.instanceId}`;
        this.#add('description-mismatch', message, place);
        return;
      }
      if (expected.version !== undefined && expected.version !== seen.versionId) {
        const message = `expected version ${expected.version} by the description, got ${seen.versionId}`;
        this.#add('description-mismatch', message, place);
      }
      // A decoder that was given the size has reported this already.
      if (expected.size !== undefined && expected.size !== seen.size && this.#file.source.size === undefined) {
        this.#add(
          'description-mismatch',
          `expected ${expected.size} bytes by the description, got ${seen.size}`,
          place,
        );
      }
      if (seen.section === undefined || expected.size !== seen.size) continue;
      const { problem } = decodeDevice(seen.section, description.devices[i]);
      if (problem !== undefined) this.#add('description-mismatch', problem, place);
    }
  }
}
