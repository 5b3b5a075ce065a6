/** TCP addresses: names become literal addresses, and services become ports. The texts of errors are QEMU's. */
import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import type { InetAddress } from '../migration-address.ts';

/** A literal address. */
export interface Endpoint {
  host: string;
  port: number;
}

/** Writes an address as QEMU's messages do: without brackets. */
export const nameOf = ({ host, port }: { host: string; port: number | string }): string => `${host}:${port}`;

/** The URI of a literal address or a name. */
export const inetUri = ({ host, port }: Endpoint): string => `tcp:${host.includes(':') ? `[${host}]` : host}:${port}`;

/** All addresses that a host and a port stand for, in the order to try them. @throws Error with the system's `code` */
export async function resolveInet(address: InetAddress): Promise<Endpoint[]> {
  const { host } = address;
  const port = portOf(address);
  if (host === '') throw failure(address, 'Name or service not known', 'ENOTFOUND');
  const family = familyOf(address);
  const literal = isIP(host);
  if (literal === 6 && family === 4) {
    throw failure(address, 'Address family for hostname not supported', 'EAI_ADDRFAMILY');
  }
  if (literal !== 0) return [{ host: literal === 4 && family === 6 ? `::ffff:${host}` : host, port }];
  const found = await lookup(host, { all: true, family, verbatim: true }).catch((error: NodeJS.ErrnoException) => {
    throw failure(address, resolverTexts[error.code ?? ''] ?? 'Name or service not known', error.code ?? 'ENOTFOUND');
  });
  return [...new Set(found.map((each) => each.address))].map((each) => ({ host: each, port }));
}

/** 4 or 6 where only that is wanted. */
export function familyOf({ ipv4, ipv6 }: InetAddress): 0 | 4 | 6 {
  if (ipv4 === false && ipv6 === false) throw new RangeError('Cannot disable IPv4 and IPv6 at same time');
  if (ipv4 === ipv6) return 0;
  return ipv6 === true || ipv4 === false ? 6 : 4;
}

const resolverTexts: Readonly<Record<string, string>> = {
  EAI_AGAIN: 'Temporary failure in name resolution',
  EAI_FAIL: 'Non-recoverable failure in name resolution',
};

function failure({ host, port }: InetAddress, text: string, code: string): Error {
  return Object.assign(new Error(`address resolution failed for ${nameOf({ host, port })}: ${text}`), { code });
}

/** The number of a port. @throws Error `EAI_SERVICE` for the name of an unknown service */
export function portOf(address: InetAddress): number {
  const { port } = address;
  if (/^\d+$/.test(port)) return Number(BigInt(port) % 65536n);
  const found = serviceNumber(port);
  if (found === undefined) throw failure(address, 'Servname not supported for ai_socktype', 'EAI_SERVICE');
  return found;
}

/** Finds a service of TCP in the system's list. */
function serviceNumber(name: string): number | undefined {
  let list: string;
  try {
    list = readFileSync('/etc/services', 'utf8');
  } catch {
    return undefined;
  }
  for (const line of list.split('\n')) {
    const [service, number, ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/);
    const [, port] = /^(\d+)\/tcp$/.exec(number ?? '') ?? [];
    if (port !== undefined && (service === name || aliases.includes(name))) return Number(port);
  }
  return undefined;
}
