/** How `vmferry vm` reaches others: lines by QEMU's addresses, and files for what arrives. */
import { statSync } from 'node:fs';
import type { ByteStore } from '../../io/byte-source.ts';
import type { Connection } from '../../io/connection.ts';
import type { FileAddress } from '../../io/migration-address.ts';
import { NodeCodecs } from '../../io/node/codecs.ts';
import { connectTo } from '../../io/node/connect.ts';
import { listenAt } from '../../io/node/listen.ts';
import { openScratch } from '../../io/node/output-file.ts';
import type { UserObjects } from '../../io/node/tls-objects.ts';
import type { MachineGuest } from '../../migrate/machine.ts';
import type { MachineAddress } from '../../migrate/machine-address.ts';
import type { IncomingLines } from '../../migrate/machine-incoming.ts';
import type { LineTls, MachineLines } from '../../migrate/machine-migrate.ts';
import { createMappedFile, requireFile } from './state-file.ts';

/** What lines are made with. */
export interface LineOptions {
  objects: UserObjects;
  /** The directory of scratch files. */
  scratch: string;
  /** Opens the guest in a file that arrived. */
  open: (file: ByteStore) => Promise<MachineGuest>;
  /** Copies the guest in a mapped-ram file. */
  openFile: (address: FileAddress) => Promise<MachineGuest>;
  /** Files that RAM is read from. */
  sources: readonly string[];
  report: (text: string) => void;
}

export function makeLines({ objects, scratch, sources, ...rest }: LineOptions): MachineLines & IncomingLines {
  const { report } = rest;
  return {
    ...rest,
    codecs: new NodeCodecs(),
    async connect(address, tls, signal) {
      if (address.transport === 'file') requireOther(address.filename, sources);
      return connect(address, tls, signal, objects);
    },
    createFile({ filename, offset }) {
      requireOther(filename, sources);
      return createMappedFile(filename, offset);
    },
    requireReadable: ({ filename }) => requireFile(filename),
    async listen(address, { creds, authz }) {
      if (address.transport === 'impossible') throw new Error(address.cannotListen);
      // Credentials are looked up for each connection, so a listener may be older than they are.
      const tls = creds === '' ? {} : { tls: serverTls(objects, creds, authz) };
      return listenAt(address, { ...tls, onRefused: (error) => report(error.message) });
    },
    makeFile: () => openScratch(scratch),
  };
}

/** @throws Error for a file that the VM's RAM is read from */
function requireOther(filename: string, sources: readonly string[]): void {
  const there = statSync(filename, { throwIfNoEntry: false });
  const isSource = (path: string) => {
    const source = statSync(path, { throwIfNoEntry: false });
    return source !== undefined && source.ino === there?.ino && source.dev === there.dev;
  };
  if (there !== undefined && sources.some(isSource)) {
    throw new Error(`Could not create '${filename}': the memory of this VM is read from it`);
  }
}

async function connect(
  address: MachineAddress,
  tls: LineTls | undefined,
  signal: AbortSignal,
  objects: UserObjects,
): Promise<Connection> {
  if (address.transport === 'impossible') throw new Error(address.cannotConnect);
  // Credentials are looked up only for a connection that was made.
  type Client = ReturnType<UserObjects['clientTls']>;
  const client = ({ creds, hostname }: LineTls): Client => ({
    secure: (socket, ...rest) => objects.clientTls(creds, hostname || undefined).secure(socket, ...rest),
  });
  return connectTo(address, { ...(tls === undefined ? {} : { tls: client(tls) }), signal });
}

function serverTls(objects: UserObjects, creds: string, authz: string) {
  type Server = ReturnType<UserObjects['serverTls']>;
  const server: Server = {
    secure: (socket) => objects.serverTls(creds, authz === '' ? undefined : authz).secure(socket),
  };
  return server;
}
