/**
 * A line to a peer that takes part in a migration. It is a source and a sink like any other, so the readers of files
 * read it, and the writers of files write it.
 */
import type { ByteSink, ByteSource } from './byte-source.ts';

/** A line to a peer. */
export interface Connection extends ByteSource, ByteSink {
  /** It can only be read forward. */
  readonly size: undefined;
  /** Whether the peer sends on it. */
  readonly canRead: boolean;
  /** Whether the peer receives what is written to it. */
  readonly canWrite: boolean;
  /** How the bytes are read, such as `direct`, for statistics. */
  readonly method: string;
  /**
   * Reads up to `target.length` bytes, as soon as there is at least one. Positions count from 0. Only one read at a time
   * may be pending. Returns 0 when the peer has ended its direction in good order.
   * @throws PeerError if the line broke
   */
  read(target: Uint8Array, position: number): Promise<number>;
  /**
   * Resolves when the platform has taken all of `bytes`, which may then be overwritten. Writes may not overlap.
   * @throws PeerError if the line broke
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends the outgoing direction after what was written. Resolves when that has left, or when the line has broken. */
  end(): Promise<void>;
  /** Breaks the line in both directions at once. Pending reads and writes reject. Never throws. */
  destroy(): void;
  /** Ends the outgoing direction, and releases everything. */
  close(): Promise<void>;
  /**
   * Takes the descriptors that came with the bytes of the last read. Missing where the platform does not receive any.
   */
  takeDescriptors?(): Descriptors | undefined;
}

/** Descriptors that a peer has passed. */
export interface Descriptors {
  /** Takes the first one, which the caller closes. The others are closed. Undefined: there is none. */
  take(): number | undefined;
  /** Closes all of them. */
  close(): void;
}

/** Waits for connections. */
export interface Listener {
  /** The URI that a peer can use: with the port that was chosen. */
  readonly uri: string;
  /** The next connection, after its TLS handshake if there is one. Undefined once the listener is closed. */
  accept(): Promise<Connection | undefined>;
  /** Stops listening. Leaves nothing behind, such as the file of a unix socket. Accepted connections live on. */
  close(): Promise<void>;
}

/**
 * The peer failed: it could not be reached, broke the line off, stayed silent for too long, or was refused. `message` is
 * QEMU's own text where QEMU has one.
 */
export class PeerError extends Error {
  override readonly name = 'PeerError';
  /** The system's code, such as `ECONNREFUSED`, if there is one. */
  readonly code: string | undefined;

  constructor(message: string, { code, cause }: { code?: string | undefined; cause?: unknown } = {}) {
    super(message, cause === undefined ? {} : { cause });
    this.code = code;
  }
}
