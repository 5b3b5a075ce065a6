/** How lines are set up, and when that is given up. */
import { PeerError } from '../connection.ts';
import type { AbortSignalLike } from '../platform.ts';
import type { DescriptorCalls } from './descriptor-calls.ts';
import type { ReadMethod } from './socket-reader.ts';
import type { TlsClient, TlsServer } from './tls-session.ts';

/** How a connection is made. */
export interface ConnectOptions {
  /** The credentials, for TLS. */
  tls?: TlsClient | undefined;
  /** Ends the attempt. */
  signal?: AbortSignalLike | undefined;
  /** Connecting and the TLS handshake together take at most this long. Default: 30 s. */
  setupTimeoutMs?: number | undefined;
  /** How sockets are read. Default: `data`, because the side that connects reads little. */
  method?: ReadMethod | undefined;
}

/** How a listener works. */
export interface ListenOptions {
  /** The credentials, for TLS. A connection is accepted once its handshake is done. */
  tls?: TlsServer | undefined;
  /** Closes the listener. */
  signal?: AbortSignalLike | undefined;
  /** A TLS handshake takes at most this long. Default: 30 s. */
  setupTimeoutMs?: number | undefined;
  /** Connections that may wait to be accepted. Default: 256. */
  backlog?: number | undefined;
  /** Told of connections whose handshake failed. The listener goes on. */
  onRefused?: ((error: Error, peer: string) => void) | undefined;
  /** How sockets are read. Default: the fastest way that works here. */
  method?: ReadMethod | undefined;
}

/** How a listener works whose clients may pass descriptors. */
export interface PassingOptions extends ListenOptions {
  /** Receives the descriptors that come over unix sockets. Default: they are lost. */
  descriptors?: DescriptorCalls | undefined;
}

/** The error of a handshake that takes too long. */
export const lateHandshake = (): PeerError =>
  new PeerError('TLS handshake failed: the peer did not answer in time', { code: 'ETIMEDOUT' });

/** Setting up a line takes at most this long by default. */
export const defaultSetupMs = 30_000;

/** What can end a setup. */
export interface SetupLimit {
  signal?: AbortSignalLike | undefined;
  ms: number;
  /** The error if the time is over. */
  late: () => Error;
}

/**
 * Waits for work until the time is over or the signal is aborted. The work itself goes on: what it still makes is handed
 * to `discard`.
 */
export async function withinSetup<Result>(
  work: Promise<Result>,
  { signal, ms, late }: SetupLimit,
  discard: (made: Result) => void = () => {},
): Promise<Result> {
  let isOver = false;
  let stop = () => {};
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<never>((_, reject) => {
    stop = () => reject(signal?.reason);
    timer = setTimeout(() => reject(late()), ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
  work.then(
    (made) => isOver && discard(made),
    () => {},
  );
  try {
    return await Promise.race([work, over]);
  } catch (error) {
    isOver = true;
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
}
