/**
 * Facts of a file that a loader could refuse: machine, blocks, sections, commands, and the device state as described.
 * The same facts about a file that the target saved show what the target has.
 */

import { type DeviceState, decodeDevice } from '../../devices/device-state.ts';
import type { Abortable } from '../../io/abort.ts';
import { originOf } from '../../io/byte-source.ts';
import { PageKind } from '../../kernel/page-batch.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { countDeviceBytes } from '../../store/settle.ts';
import type { DeviceDescription, VmDescription } from '../../vm/description.ts';
import type { Configuration, DeviceSection, FlowItem } from '../../vm/flow.ts';
import { type Finding, MigrationError, type Place, type PlaceOrigin } from '../../vm/migration-error.ts';
import { SectionQueues } from '../../vm/section-queues.ts';

/** A section that begins: an iterable's START, or a device. */
export interface SectionFacts {
  /** idstr, such as `0000:00:02.0/virtio-net`. */
  name: string;
  instanceId: number;
  versionId: number;
  place: Place;
  /** Its part of the VM description, if there is one. */
  description: DeviceDescription | undefined;
  /** Undefined for an iterable. */
  state: DeviceState | undefined;
}

/** A file's facts about a RAM block. */
export interface BlockFacts {
  idstr: string;
  /** Bytes. */
  usedLength: number;
  pageSize: number;
}

/** A file's facts about a command in its stream. */
export interface CommandFacts {
  name: string;
  place: Place;
  payloadLength: number;
}

/** All of it in stream order. */
export interface FileFacts {
  origin: PlaceOrigin;
  configuration: (Configuration & { place: Place }) | undefined;
  /** Whether the target page size is stated by the stream. */
  statesPageSize: boolean;
  blocks: BlockFacts[];
  sections: SectionFacts[];
  commands: CommandFacts[];
  /** Whether its sections have footers; undefined if there was no section. */
  hasFooters: boolean | undefined;
  /** An iterable ended. In all streams except those of background snapshots, one does. */
  hasEnd: boolean;
  /** The first page compressed by the capability `compress`. */
  compressedPages: Place | undefined;
  /** The first mark in the main stream of a multifd migration. */
  multifd: Place | undefined;
  hasDescription: boolean;
  /** The description has the configuration, which QEMU 7.2 omits. */
  describesConfiguration: boolean;
  /** Errors that a loader would notice too, or that make the content doubtful. */
  findings: Finding[];
  /** What stopped the reading. */
  error: Finding | undefined;
}

/** The most sections, commands and findings that are kept. */
const maxListed = 100_000;

/** Reads a whole file, except for its pages if it can seek over them. */
export async function readFacts(file: MigrationFile, options: Abortable = {}): Promise<FileFacts> {
  return whileAllowed(options, [file], () => gatherFacts(file));
}

async function gatherFacts(file: MigrationFile): Promise<FileFacts> {
  const gathering = new FactCollector(file);
  try {
    for await (const item of file.flow({ read: 'bitmaps' })) gathering.take(item);
  } catch (caught) {
    if (!(caught instanceof MigrationError)) throw caught;
    gathering.facts.error = caught.toFinding();
  }
  return gathering.finish();
}

/** The facts of a file before it is read. */
export function emptyFacts(origin: PlaceOrigin): FileFacts {
  return {
    origin,
    configuration: undefined,
    statesPageSize: false,
    blocks: [],
    sections: [],
    commands: [],
    hasFooters: undefined,
    hasEnd: false,
    compressedPages: undefined,
    multifd: undefined,
    hasDescription: false,
    describesConfiguration: false,
    findings: [],
    error: undefined,
  };
}

class FactCollector {
  readonly facts: FileFacts;
  readonly #file: MigrationFile;
  readonly #devices: { section: DeviceSection; facts: SectionFacts }[] = [];
  #description: VmDescription | undefined;
  #deviceBytes = 0;

  constructor(file: MigrationFile) {
    this.#file = file;
    this.facts = emptyFacts(originOf(file.source));
  }

  take(item: FlowItem): void {
    const { facts } = this;
    switch (item.kind) {
      case 'source':
        facts.origin = item.origin;
        break;
      case 'configuration':
        facts.configuration = { ...item.configuration, place: this.#place(item.offset) };
        break;
      case 'section':
        facts.hasFooters ??= true;
        facts.hasEnd ||= item.section.kind === 'end';
        if (item.section.kind === 'start') this.#addSection(item.section);
        break;
      case 'block':
        facts.blocks.push(item.block);
        break;
      case 'blocks-end':
        facts.statesPageSize = item.pageSizeFrom === 'stream';
        break;
      case 'pages':
        if (facts.compressedPages !== undefined || this.#file.parts.channels.length > 0) break;
        this.#findCompressed(item);
        break;
      case 'sync':
        facts.multifd ??= { ...this.#place(item.offset), section: 'ram' };
        break;
      case 'command': {
        const { name, offset, payload } = item.command;
        if (facts.commands.length >= maxListed) break;
        facts.commands.push({ name, place: this.#place(offset), payloadLength: payload.length });
        break;
      }
      case 'device': {
        const { device } = item;
        const section = this.#addSection(device);
        if (device.omitted !== undefined) break;
        this.#deviceBytes = countDeviceBytes(this.#file, device, this.#deviceBytes);
        if (section !== undefined) this.#devices.push({ section: device, facts: section });
        break;
      }
      case 'finding':
        if (item.finding.code === 'no-footers') facts.hasFooters = false;
        if (item.finding.severity === 'error' && facts.findings.length < maxListed) facts.findings.push(item.finding);
        break;
      case 'description':
        facts.hasDescription = item.description.parsed !== undefined;
        facts.describesConfiguration = item.description.parsed?.configuration !== undefined;
        this.#description = item.description.parsed;
        break;
      default:
    }
  }

  /** Decodes the devices: their descriptions come last. */
  finish(): FileFacts {
    const described = new SectionQueues(this.#description?.devices ?? []);
    for (const { section, facts } of this.#devices) {
      facts.description = described.take(section);
      facts.state = decodeDevice(section, facts.description);
    }
    return this.facts;
  }

  #place(offset: number): Place {
    return { ...this.facts.origin, offset };
  }

  #addSection({
    name,
    instanceId,
    versionId,
    offset,
  }: Pick<DeviceSection, 'name' | 'instanceId' | 'versionId' | 'offset'>): SectionFacts | undefined {
    if (this.facts.sections.length >= maxListed) return undefined;
    const place = { ...this.#place(offset), section: name };
    const section = { name, instanceId, versionId, place, description: undefined, state: undefined };
    this.facts.sections.push(section);
    return section;
  }

  #findCompressed({ block, batch }: FlowItem & { kind: 'pages' }): void {
    const first = batch.kind.subarray(0, batch.count).indexOf(PageKind.compressed);
    if (first === -1) return;
    const offset = batch.offset[first] as number;
    this.facts.compressedPages = { ...this.#place(offset), section: 'ram', block: block.idstr };
  }
}
