/** vmferry/migrate in Node: everything of `migrate/index.ts`, and lines by QEMU's migration URIs. */
import type { Connection, Listener } from './io/connection.ts';
import { parseMigrationUri } from './io/migration-address.ts';
import { type ConnectOptions, connectTo } from './io/node/connect.ts';
import { type ListenOptions, listenAt } from './io/node/listen.ts';

export type { ConnectOptions } from './io/node/connect.ts';
export { type DriveFile, openDriveFile } from './io/node/drive-file.ts';
export type { ListenOptions } from './io/node/listen.ts';
export { type DirectoryFile, RecordingDirectory } from './io/node/recording-folder.ts';
export type { ReadMethod } from './io/node/socket-reader.ts';
export { UserObjects } from './io/node/tls-objects.ts';
export type { TlsClient, TlsServer } from './io/node/tls-session.ts';
export * from './migrate/index.ts';

/**
 * Listens at a migration URI as QEMU takes it: `tcp:HOST:PORT[,to=PORT]`, `unix:PATH`, `fd:NUMBER`, `exec:COMMAND`,
 * `file:PATH[,offset=N]`, or `-` for standard input. `listener.uri` is the URI for the peer, with the real port.
 * @throws RangeError for a URI that QEMU does not take; Error with Node's `code` if it cannot listen there
 */
export const listen = async (uri: string, options: ListenOptions = {}): Promise<Listener> =>
  listenAt(parseMigrationUri(uri), options);

/**
 * Connects to a migration URI, see {@link listen}. For multifd, connect the main line first.
 * @throws RangeError for a URI that QEMU does not take; PeerError if nobody listens there
 */
export const connect = async (uri: string, options: ConnectOptions = {}): Promise<Connection> =>
  connectTo(parseMigrationUri(uri), options);
