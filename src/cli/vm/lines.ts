/** How `vmferry vm` reaches others: lines by QEMU's addresses, and files for what arrives. */
import { closeSync, constants, fstatSync, statSync } from 'node:fs';
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
import type { DescriptorTable } from '../../qmp/machine/descriptor-table.ts';
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
  /** What paths `/dev/fdset/N` stand for. */
  descriptors: DescriptorTable;
  report: (text: string) => void;
}

export function makeLines(options: LineOptions): MachineLines & IncomingLines {
  const { objects, scratch, sources, descriptors, open, report } = options;
  return {
    ...{ open, report, codecs: new NodeCodecs() },
    async connect(address, tls, signal) {
      if (address.transport !== 'file') {
        requireOpen(address);
        return connect(address, tls, signal, objects);
      }
      const file = inSet(descriptors, address, 'write');
      requireOther(file, sources);
      return connect(file, tls, signal, objects);
    },
    createFile(address, { directIo }) {
      const file = inSet(descriptors, address, 'write');
      requireOther(file, sources);
      return createMappedFile(file, directIo);
    },
    requireReadable: (address) => {
      const { fd } = inSet(descriptors, address, 'read');
      if (fd === undefined) requireFile(address.filename);
      else closeSync(fd);
    },
    openFile: async (address) => options.openFile(inSet(descriptors, address, 'read')),
    async listen(address, { creds, authz }) {
      if (address.transport === 'impossible') throw new Error(address.cannotListen);
      // Credentials are looked up for each connection, so a listener may be older than they are.
      const tls = creds === '' ? {} : { tls: serverTls(objects, creds, authz) };
      const at = address.transport === 'file' ? inSet(descriptors, address, 'read') : address;
      return listenAt(at, { ...tls, onRefused: (error) => report(error.message) });
    },
    makeFile: () => openScratch(scratch),
  };
}

/** @throws Error with QEMU's text for the number of a descriptor that is not open */
function requireOpen(address: MachineAddress): void {
  if (address.transport !== 'socket' || address.type !== 'fd' || address.fd !== undefined) return;
  try {
    if (/^\d{1,9}$/.test(address.str)) fstatSync(Number(address.str));
  } catch (error) {
    throw Object.assign(new Error(`File descriptor named '${address.str}' has not been found`), { cause: error });
  }
}

/** The address with the descriptor of its set, if its path is that of one. @throws Error with QEMU's text */
function inSet(descriptors: DescriptorTable, address: FileAddress, direction: 'read' | 'write'): FileAddress {
  const { filename } = address;
  const [flags, words] =
    direction === 'read'
      ? [constants.O_RDONLY, `Could not open '${filename}'`]
      : [constants.O_WRONLY | constants.O_CREAT, `Could not create '${filename}'`];
  const fd = descriptors.open(filename, flags, words);
  return fd === undefined ? address : { ...address, fd };
}

/** @throws Error for a file that the VM's RAM is read from */
function requireOther({ filename, fd }: FileAddress, sources: readonly string[]): void {
  const there = fd === undefined ? statSync(filename, { throwIfNoEntry: false }) : fstatSync(fd);
  const isSource = (path: string) => {
    const source = statSync(path, { throwIfNoEntry: false });
    return source !== undefined && source.ino === there?.ino && source.dev === there.dev;
  };
  if (there !== undefined && sources.some(isSource)) {
    if (fd !== undefined) closeSync(fd);
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
