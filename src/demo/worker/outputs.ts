/**
 * Writes the outputs that the page saves. An output goes to a scratch file first, where it can be read back. From there it is
 * copied to the file that the user chose, which gets the whole output or none of it.
 */

import { appendTo, type ByteSink, type ByteSource } from '../../io/byte-source.ts';
import type { ScratchFile, ScratchPlace } from '../../io/scratch.ts';
import { watchSource } from '../../io/watched-source.ts';
import { requireZippable, ZipWriter, zipLength } from '../../io/zip-writer.ts';
import { type MigrationFile, openFile } from '../../read/open.ts';
import { readBytes, readContent } from '../../store/ram-content.ts';
import { type Conversion, convertToMappedRam, convertToMultifd, convertToStream } from '../../tasks/convert/convert.ts';
import type { Verification } from '../../tasks/inspect/verify.ts';
import type { OutputFormat, Saved, Target } from '../protocol.ts';
import { type CallContext, Meter } from './calls.ts';
import type { ViewedFile } from './viewed-file.ts';

export class Outputs {
  readonly #scratch: ScratchPlace;
  /** Scratch files that the page still uses, by ticket. */
  readonly #given = new Map<number, ScratchFile>();
  #last = 0;

  constructor(scratch: ScratchPlace) {
    this.#scratch = scratch;
  }

  /** Converts a file and reads the output back. @throws MigrationError, CopyError, NoRoomError, RangeError */
  async convert(
    file: ViewedFile,
    format: OutputFormat,
    name: string,
    target: Target,
    context: CallContext,
  ): Promise<Saved> {
    return this.#save(name, target, context, async (output) => {
      const makeScratch = () => this.#scratch.makeFile();
      return file.read(context, 'writing', async (input) => {
        const conversion =
          format === 'multifd'
            ? await this.#writeSet(input, output, name, context)
            : format === 'stream'
              ? await convertToStream(input, ended(appendTo(output), context.signal), { makeScratch })
              : await convertToMappedRam(input, output);
        try {
          const meter = new Meter(context, 'checking', output.size);
          const { signal } = context;
          const copy = await openFile(watchSource(lend(output, name), { signal, onRead: (bytes) => meter.add(bytes) }));
          return await conversion.check(copy);
        } finally {
          await conversion.close();
        }
      });
    });
  }

  /** Writes a multifd set as a zip archive. Its files are written at the same time, so they go to scratch files first. */
  async #writeSet(input: MigrationFile, output: ScratchFile, name: string, context: CallContext): Promise<Conversion> {
    const { signal } = context;
    const stem = name.replace(/(\.multifd)?\.zip$/, '');
    const makeScratch = () => this.#scratch.makeFile();
    const scratches: ScratchFile[] = [];
    try {
      for (let i = 0; i <= channelCount; i++) scratches.push(await makeScratch());
      const [main, ...channels] = scratches.map((scratch) => ended(appendTo(scratch), signal)) as [
        ByteSink,
        ...ByteSink[],
      ];
      const conversion = await convertToMultifd(input, main, channels, { makeScratch });
      try {
        const files = scratches.map((scratch, i) => lend(scratch, i === 0 ? stem : `${stem}.${i - 1}`));
        requireZippable(files);
        const zip = new ZipWriter(ended(appendTo(output), signal));
        for (const each of files) await zip.add(each.name, each);
        await zip.end();
        return conversion;
      } catch (error) {
        await conversion.close();
        throw error;
      }
    } finally {
      for (const scratch of scratches) await scratch.close();
    }
  }

  /** Writes the content of all blocks as a zip archive. @throws MigrationError, NoRoomError, RangeError */
  async exportBlocks(file: ViewedFile, name: string, target: Target, context: CallContext): Promise<Saved> {
    const { ram } = await file.content(context);
    const images = ram.blocks.map((block, i) => ({ block, name: imageName(block.idstr, i), size: block.usedLength }));
    requireZippable(images);
    return this.#save(name, target, context, async (output) => {
      const meter = new Meter(context, 'writing', zipLength(images));
      const zip = new ZipWriter(ended(appendTo(output), context.signal));
      for (const image of images) {
        const { block } = image;
        await zip.add(
          image.name,
          watched(readBytes(ram, block), () => meter.reach(zip.length)),
        );
      }
      await zip.end();
      return undefined;
    });
  }

  /** Writes the content of a block. @throws MigrationError, NoRoomError */
  async exportBlock(
    file: ViewedFile,
    index: number,
    name: string,
    target: Target,
    context: CallContext,
  ): Promise<Saved> {
    const { block } = file.block(index);
    const { ram } = await file.content(context);
    return this.#save(name, target, context, async (output) => {
      const meter = new Meter(context, 'writing', block.usedLength);
      let at = 0;
      for await (const { length, bytes } of readContent(ram, ram.blocks[index] ?? block)) {
        context.signal.throwIfAborted();
        if (bytes !== undefined) await output.write(bytes, at);
        at += length;
        meter.reach(at);
      }
      await output.truncate(block.usedLength);
      return undefined;
    });
  }

  async release(ticket: number): Promise<void> {
    const file = this.#given.get(ticket);
    this.#given.delete(ticket);
    await file?.close();
  }

  async #save(
    name: string,
    target: Target,
    context: CallContext,
    write: (output: ScratchFile) => Promise<Verification | undefined>,
  ): Promise<Saved> {
    const output = await this.#scratch.makeFile();
    const ticket = ++this.#last;
    let isGiven = false;
    try {
      const verification = await write(output);
      const file = await output.finish(name);
      if (target !== 'file') await copyTo(target.handle, file, context);
      context.signal.throwIfAborted();
      isGiven = target === 'file';
      if (isGiven) this.#given.set(ticket, output);
      const checked = verification === undefined ? {} : { verification };
      return { bytes: file.size, ticket, ...(isGiven ? { file } : {}), ...checked };
    } finally {
      if (!isGiven) await output.close();
    }
  }
}

/** Channels of a multifd set: QEMU's default. */
const channelCount = 2;

/** The name of a block's image. The number makes it unique. */
const imageName = (idstr: string, index: number) => `${index}-${idstr.replace(/[^\w.-]/g, '_').slice(0, 80)}.raw`;

async function* watched(chunks: AsyncIterable<Uint8Array>, onChunk: () => void): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    yield chunk;
    onChunk();
  }
}

/** A sink that stops when the signal is aborted. */
function ended(sink: ByteSink, signal: AbortSignal): ByteSink {
  return {
    write(bytes) {
      signal.throwIfAborted();
      return sink.write(bytes);
    },
  };
}

/** The content of a scratch file as a source that does not close the file. */
function lend(store: ScratchFile, name: string): ByteSource & { size: number } {
  return { name, size: store.size, read: (bytes, position) => store.read(bytes, position), close: async () => {} };
}

/** Copies to a file that the user chose. If that fails, the file stays as it was. */
async function copyTo(handle: FileSystemFileHandle, file: File, context: CallContext): Promise<void> {
  const meter = new Meter(context, 'saving', file.size);
  const count = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(bytes, out) {
      meter.add(bytes.length);
      out.enqueue(bytes);
    },
  });
  // A failure or the signal aborts the writable, which then discards everything.
  await file
    .stream()
    .pipeThrough(count)
    .pipeTo(await handle.createWritable(), { signal: context.signal });
}
