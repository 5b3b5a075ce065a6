/** Streams of the platform as sinks: those of the web, and those of Node (files, sockets, standard output). */
import type { ByteSink } from './byte-source.ts';
import type { WritableStreamLike } from './platform.ts';

/** What is used of a Writable of Node's. */
export interface NodeWritable {
  /** Takes a chunk, and calls `done` when it has gone out or failed. */
  write(chunk: Uint8Array, done: (error?: Error | null) => void): unknown;
  /** Listens for failures and for the end. */
  on(event: 'error' | 'close', listener: (error?: Error) => void): unknown;
  /** Stops listening. */
  off(event: 'close', listener: () => void): unknown;
}

/**
 * Writes in order to a stream, each time waiting until it has taken the bytes, of which it gets a copy. Ending the stream is
 * yours. If it fails or is closed, writing fails, then and ever after.
 * @example
 * await writeStream(vm, pipeTo(socket));
 * socket.end();
 */
export function pipeTo(stream: WritableStreamLike | NodeWritable): ByteSink {
  return 'getWriter' in stream ? pipeToWeb(stream) : pipeToNode(stream);
}

/** The stream is locked only while it is written to, so that it can be closed by whoever has it. */
function pipeToWeb(stream: WritableStreamLike): ByteSink {
  return {
    async write(bytes) {
      const writer = stream.getWriter();
      try {
        await writer.write(bytes.slice());
      } finally {
        writer.releaseLock();
      }
    },
  };
}

function pipeToNode(stream: NodeWritable): ByteSink {
  let failure: Error | undefined;
  stream.on('error', (error) => {
    failure ??= error;
  });
  return {
    write: (bytes) =>
      new Promise((resolve, reject) => {
        if (failure !== undefined) return reject(failure);
        const close = () => reject(failure ?? new Error('the stream was closed before everything was written'));
        stream.on('close', close);
        stream.write(bytes.slice(), (error) => {
          stream.off('close', close);
          if (error == null) resolve();
          else reject(failure ?? error);
        });
      }),
  };
}
