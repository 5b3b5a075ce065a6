/**
 * Writes a Flow again, item by item, as the bytes that it was decoded from. Passes, parts and names stay as they were.
 * (`write-stream.ts` writes its own.)
 *
 * A Flow does not say whether a section has a footer, or whether a record names its block. Both follow from the lengths
 * that it states. A Flow does not contain the bytes of iterables other than RAM, so the caller supplies them.
 */

import { type Abortable, abortableSink } from '../io/abort.ts';
import type { ByteSink } from '../io/byte-source.ts';
import type { PageBatch } from '../kernel/page-batch.ts';
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import { readIterables } from '../store/iterables.ts';
import type { FlowItem, Section } from '../vm/flow.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { encodeCommand } from '../wire/command.ts';
import { encodeConfiguration } from '../wire/configuration.ts';
import { hadName } from '../wire/ram-record-encoder.ts';
import { encodeBlockEntry, encodeEos, encodeMemSize, encodeMultifdFlush } from '../wire/ram-section.ts';
import { encodeFooter, encodeSectionHead, footerLength } from '../wire/section.ts';
import { SectionType } from '../wire/section-type.ts';
import { encodeStreamHeader } from '../wire/stream.ts';
import { encodeDescription } from '../wire/vm-description.ts';
import { StreamWriter } from './stream-writer.ts';

/** How a Flow is written. */
export interface FlowWriterOptions {
  /**
   * Returns all bytes of a section of an iterable other than RAM, from its type byte on. Without it, such sections are
   * refused.
   */
  sectionBytes?: (section: Section) => Promise<Uint8Array>;
}

/**
 * Writes the items of one stream: a main channel, a recovery or a preempt channel. It takes no pages of multifd
 * channels: the main channel must be read without its channels.
 */
export class FlowWriter {
  readonly #writer: StreamWriter;
  readonly #sectionBytes: FlowWriterOptions['sectionBytes'];
  #blocks: RamBlock[] = [];
  /** Offset in the output of the open section. */
  #start = 0;

  /** `writer` works in the arena that contains the pages. Nothing else may use it meanwhile. */
  constructor(writer: StreamWriter, { sectionBytes }: FlowWriterOptions = {}) {
    this.#writer = writer;
    this.#sectionBytes = sectionBytes;
  }

  /**
   * Takes the next item. {@link StreamWriter.flush} writes everything taken so far, if it was not written earlier.
   * @throws RangeError for an item that no plain stream contains: an item of a mapped-ram file, or a page from a
   *   multifd channel.
   */
  async take(item: FlowItem): Promise<void> {
    const writer = this.#writer;
    if (item.kind === 'pages') {
      if (item.block.mapped !== undefined || item.batch.origin.channel !== undefined) throw notPlain(item.block);
      await this.#writePages(item.block, item.batch);
    } else if (item.kind === 'section-end') await this.#endSection(item.section);
    else {
      const bytes = this.#encode(item);
      if (bytes.length > 0) await writer.raw(bytes);
    }
  }

  /** Ends a preempt channel of 7.2. */
  async eos(): Promise<void> {
    const out = new ByteWriter();
    encodeEos(out);
    await this.#writer.raw(out.bytes());
  }

  /** Encodes an item that is neither pages nor the end of a section. */
  #encode(item: FlowItem): Uint8Array {
    const out = new ByteWriter();
    switch (item.kind) {
      case 'header':
        encodeStreamHeader(out, item.version);
        break;
      case 'configuration':
        encodeConfiguration(out, item.configuration);
        break;
      case 'section':
        this.#start = this.#writer.length;
        if (!isForeign(item.section)) encodeSectionHead(out, item.section);
        break;
      case 'block':
        if (item.block.mapped !== undefined) throw notPlain(item.block);
        this.#blocks.push(item.block);
        break;
      case 'blocks-end':
        encodeMemSize(out, item.totalBytes);
        for (const block of this.#blocks) encodeBlockEntry(out, block.idstr, block.usedLength, block);
        break;
      case 'sync':
        encodeMultifdFlush(out);
        break;
      case 'device':
        if (item.device.omitted !== undefined) throw new RangeError(`expected the body of ${item.device.name}`);
        out.raw(item.device.data);
        break;
      case 'command':
        encodeCommand(out, item.command.code, item.command.payload);
        break;
      case 'eof':
        out.u8(SectionType.eof);
        break;
      case 'description':
        encodeDescription(out, item.description.text);
        break;
      default:
    }
    return out.bytes();
  }

  /** A source may name a block more often than necessary: 7.2 does so when its preempt channel was in use. */
  async #writePages(block: RamBlock, batch: PageBatch): Promise<void> {
    let first = 0;
    for (let i = 0; i < batch.count; i++) {
      if (!hadName(batch, i)) continue;
      await this.#writer.records(block, batch, first, i);
      this.#writer.forgetBlock();
      first = i;
    }
    await this.#writer.records(block, batch, first);
  }

  async #endSection(section: Section): Promise<void> {
    const writer = this.#writer;
    if (isForeign(section)) {
      const bytes = await this.#sectionBytes?.(section);
      if (bytes?.length === section.length) return writer.raw(bytes);
      throw new RangeError(
        `expected the ${section.length} bytes of a section of "${section.name}", got ${bytes?.length}`,
      );
    }
    const out = new ByteWriter();
    if (section.kind !== 'full') encodeEos(out);
    const length = writer.length + out.length - this.#start;
    if (section.length === length + footerLength) encodeFooter(out, section.id);
    await writer.raw(out.bytes());
  }
}

/** Whether the Flow lacks the bytes of a section: that of an iterable other than RAM. */
const isForeign = ({ kind, name }: Pick<Section, 'kind' | 'name'>) => kind !== 'full' && name !== 'ram';

const notPlain = ({ idstr }: RamBlock) =>
  new RangeError(`expected a plain stream, got pages of "${idstr}" that are not in it`);

/**
 * Writes a stream again, byte for byte, while reading it. For a multifd migration, which must be opened without its
 * channels, this is the main channel. Open the file with `spareBytes` for the writer.
 * @example
 * const file = await open(stream, { spareBytes: writerArenaBytes });
 * await encodeFlow(file, appendTo(copy));
 *
 * @throws MigrationError if the stream becomes unreadable; RangeError if the file is not a plain stream, or consists of
 *   several streams.
 */
export async function encodeFlow(
  file: MigrationFile,
  output: ByteSink,
  options: Abortable = {},
): Promise<{ length: number }> {
  return whileAllowed(options, [file], () => encodeAgain(file, abortableSink(output, options.signal)));
}

async function encodeAgain(file: MigrationFile, output: ByteSink): Promise<{ length: number }> {
  const { resumeOf, preempt, channels } = file.parts;
  if (resumeOf.length + preempt.length + channels.length > 0) throw new RangeError('expected one stream, got several');
  const writer = new StreamWriter(file.kernel, output);
  const sectionBytes = async (section: Section) => (await readIterables(file, [section]))[0]?.bytes ?? new Uint8Array();
  const again = new FlowWriter(writer, { sectionBytes });
  for await (const item of file.flow({ read: 'bitmaps' })) await again.take(item);
  await writer.flush();
  return { length: writer.length };
}
