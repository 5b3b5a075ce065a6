/** What a stranger, or a client of TLS, may send to the port of an incoming migration, and how QEMU ends then. */
import { once } from 'node:events';
import { connect } from 'node:net';

const header = (version: number) => [0x51, 0x45, 0x56, 0x4d, 0, 0, 0, version];
const invalid = 'load of migration failed: Invalid argument';
const unsupported = ['Unsupported migration stream version', 'load of migration failed: Operation not supported'];

interface Junk {
  bytes: Uint8Array;
  /** The connection stays open. */
  staysOpen?: true;
  /** What QEMU 7.2 and 10.0 print on standard error, line by line, before they end with 1. */
  says: string[];
}

export const junk: Record<string, Junk> = {
  'a line of HTTP': {
    bytes: Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    staysOpen: true,
    says: ['Not a migration stream', invalid],
  },
  'the hello of TLS': {
    bytes: Uint8Array.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...new Array(500).fill(7)]),
    staysOpen: true,
    says: ['Not a migration stream', invalid],
  },
  nothing: { bytes: new Uint8Array(0), says: ['Not a migration stream', invalid] },
  'half of the first word': {
    bytes: Uint8Array.from(header(3).slice(0, 2)),
    says: ['Not a migration stream', invalid],
  },
  'the first word alone': { bytes: Uint8Array.from(header(3).slice(0, 4)), says: unsupported },
  'another version': { bytes: Uint8Array.from([...header(4), 7, 0]), says: unsupported },
  'a header alone': { bytes: Uint8Array.from(header(3)), says: ['Configuration section missing', invalid] },
  'a header and junk': {
    bytes: Uint8Array.from([...header(3), ...new Array(500).fill(0xff)]),
    says: ['Configuration section missing', invalid],
  },
};

/** Sends it to a port, and closes the connection if that is part of it. Returns what closes it otherwise. */
export async function sendJunk(port: number, { bytes, staysOpen }: Junk): Promise<() => void> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  await once(socket, 'connect');
  if (bytes.length > 0) socket.write(bytes);
  if (staysOpen !== true) socket.end();
  return () => socket.destroy();
}
