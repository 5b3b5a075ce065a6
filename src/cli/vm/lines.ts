/** How `vmferry vm` reaches others: lines by QEMU's addresses, and files for what arrives. */
import type { ByteStore } from '../../io/byte-source.ts';
import type { Connection } from '../../io/connection.ts';
import { NodeCodecs } from '../../io/node/codecs.ts';
import { connectTo } from '../../io/node/connect.ts';
import { listenAt } from '../../io/node/listen.ts';
import { openScratch } from '../../io/node/output-file.ts';
import type { UserObjects } from '../../io/node/tls-objects.ts';
import type { MachineGuest } from '../../migrate/machine.ts';
import type { MachineAddress } from '../../migrate/machine-address.ts';
import type { IncomingLines } from '../../migrate/machine-incoming.ts';
import type { LineTls, MachineLines } from '../../migrate/machine-migrate.ts';

/** What lines are made with. */
export interface LineOptions {
  objects: UserObjects;
  /** The directory of scratch files. */
  scratch: string;
  /** Opens the guest in a file that arrived. */
  open: (file: ByteStore) => Promise<MachineGuest>;
  report: (text: string) => void;
}

export function makeLines({ objects, scratch, open, report }: LineOptions): MachineLines & IncomingLines {
  return {
    codecs: new NodeCodecs(),
    connect: (address, tls, signal) => connect(address, tls, signal, objects),
    async listen(address, { creds, authz }) {
      if (address.transport === 'impossible') throw new Error(address.cannotListen);
      // Credentials are looked up for each connection, so a listener may be older than they are.
      const tls = creds === '' ? {} : { tls: serverTls(objects, creds, authz) };
      return listenAt(address, { ...tls, onRefused: (error) => report(error.message) });
    },
    makeFile: () => openScratch(scratch),
    open,
    report,
  };
}

async function connect(
  address: MachineAddress,
  tls: LineTls | undefined,
  signal: AbortSignal,
  objects: UserObjects,
): Promise<Connection> {
  if (address.transport === 'impossible') throw new Error(address.cannotConnect);
  const client = tls === undefined ? undefined : objects.clientTls(tls.creds, tls.hostname || undefined);
  return connectTo(address, { ...(client === undefined ? {} : { tls: client }), signal });
}

function serverTls(objects: UserObjects, creds: string, authz: string) {
  type Server = ReturnType<UserObjects['serverTls']>;
  const server: Server = {
    secure: (socket) => objects.serverTls(creds, authz === '' ? undefined : authz).secure(socket),
  };
  return server;
}
