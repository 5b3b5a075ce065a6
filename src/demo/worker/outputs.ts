/**
 * What is written for the page to save: to a scratch file, where it can be read back, and from there to the place that was
 * chosen, which has all of it or nothing.
 */

import { appendTo, type ByteSink, type ByteSource } from '../../io/byte-source.ts';
import type { ScratchFile, ScratchPlace } from '../../io/scratch.ts';
import { watchSource } from '../../io/watched-source.ts';
import { openFile } from '../../read/open.ts';
import { readContent } from '../../store/ram-content.ts';
import { convertToMappedRam, convertToStream } from '../../tasks/convert/convert.ts';
import type { Verification } from '../../tasks/inspect/verify.ts';
import type { Saved, Target } from '../protocol.ts';
import { type CallContext, Meter } from './calls.ts';
import type { ViewedFile } from './viewed-file.ts';

export class Outputs {
  readonly #scratch: ScratchPlace;
  /** Files that were given to the page, by their tickets. */
  readonly #given = new Map<number, ScratchFile>();
  #last = 0;

  constructor(scratch: ScratchPlace) {
    this.#scratch = scratch;
  }

  /** Converts a file and reads back what was written. @throws MigrationError; CopyError; NoRoomError */
  async convert(
    file: ViewedFile,
    format: 'stream' | 'mapped-ram',
    name: string,
    target: Target,
    context: CallContext,
  ): Promise<Saved> {
    return this.#save(name, target, context, async (output) => {
      const makeScratch = () => this.#scratch.makeFile();
      return file.read(context, 'writing', async (input) => {
        const conversion =
          format === 'stream'
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

  /** Writes a block's content. @throws MigrationError; NoRoomError */
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

/** A sink that takes nothing more when a signal says so. */
function ended(sink: ByteSink, signal: AbortSignal): ByteSink {
  return {
    write(bytes) {
      signal.throwIfAborted();
      return sink.write(bytes);
    },
  };
}

/** A store for who reads it, and is not to close it. */
function lend(store: ScratchFile, name: string): ByteSource {
  return { name, size: store.size, read: (bytes, position) => store.read(bytes, position), close: async () => {} };
}

/** Writes a file to a place that was chosen; if that fails, what is there stays as it was. */
async function copyTo(handle: FileSystemFileHandle, file: File, context: CallContext): Promise<void> {
  const meter = new Meter(context, 'saving', file.size);
  const count = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(bytes, out) {
      meter.add(bytes.length);
      out.enqueue(bytes);
    },
  });
  // A failure, and the signal, abort the writable: nothing of it is kept.
  await file
    .stream()
    .pipeThrough(count)
    .pipeTo(await handle.createWritable(), { signal: context.signal });
}
