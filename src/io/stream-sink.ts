/** Platform streams as sinks: web streams, and Node's streams (files, sockets, standard output). */
import type { ByteSink } from './byte-source.ts';
import type { WritableStreamLike } from './platform.ts';

/** The part of Node's Writable that is used. */
export interface NodeWritable {
  /** Takes a chunk, and calls `done` when it was written or failed. */
  write(chunk: Uint8Array, done: (error?: Error | null) => void): unknown;
  /** Listens for failures and for the end. */
  on(event: 'error' | 'close', listener: (error?: Error) => void): unknown;
  /** Stops listening. */
  off(event: 'close', listener: () => void): unknown;
}

/**
 * Writes to a stream in order. Each write waits until the stream has taken a copy of the bytes. The caller ends the
 * stream. If the stream fails or is closed, this write and all later ones fail.
 * @example
 * await writeStream(vm, pipeTo(socket));
 * socket.end();
 */
export function pipeTo(stream: WritableStreamLike | NodeWritable): ByteSink {
  return 'getWriter' in stream ? pipeToWeb(stream) : pipeToNode(stream);
}

/** The stream is locked only during writes, so its owner can close it. */
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
