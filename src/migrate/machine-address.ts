/**
 * Where a migration of a machine goes to or comes from, as its monitor is told: a URI, or QEMU's list of channels. The
 * texts of errors are QEMU's.
 */
import { type InetAddress, inetFlags, type MigrationAddress, parseMigrationUri } from '../io/migration-address.ts';
import type { Schema } from '../schema/qapi/schema.ts';

/** An address that this platform cannot use, and what QEMU says where it cannot either. */
interface ImpossibleAddress {
  transport: 'impossible';
  /** Why nothing can be connected there, and why nothing can listen there. */
  cannotConnect: string;
  cannotListen: string;
  /** Whether the command itself fails, and not only the migration. */
  isSynchronous: boolean;
}

export type MachineAddress = Exclude<MigrationAddress, { transport: 'stdio' }> | ImpossibleAddress;

/** Which address a command is given. */
export interface GivenAddress {
  uri?: string | undefined;
  channels?: readonly { 'channel-type': string; addr: Readonly<Record<string, unknown>> }[] | undefined;
}

/** How releases word the errors. */
interface AddressTexts {
  /** For a URI whose transport nobody knows. */
  unknown: (uri: string) => string;
  /** For a list with more than one entry. */
  tooMany: string;
  /** Whether it knows `file:`. */
  hasFiles: boolean;
}

/** How a release words errors of the addresses that a machine migrates to. */
export const outgoingTexts = (schema: Schema): AddressTexts => ({
  unknown: (uri) =>
    schema.isFrom('8.2') ? unknownProtocol(uri) : "Parameter 'uri' expects a valid migration protocol",
  tooMany: schema.isFrom('10.0') ? 'Channel list has more than one main entry' : tooManyEntries,
  hasFiles: schema.isFrom('8.2'),
});

/** The same of those that it waits at. */
export const incomingTexts = (schema: Schema): AddressTexts => ({
  unknown: unknownProtocol,
  tooMany: schema.isFrom('10.0') ? "Channel list must have only one entry, for type 'main'" : tooManyEntries,
  hasFiles: schema.isFrom('8.2'),
});

const tooManyEntries = 'Channel list has more than one entries';
const unknownProtocol = (uri: string) => `unknown migration protocol: ${uri}`;

/**
 * @throws RangeError with QEMU's text
 */
export function machineAddress({ uri, channels }: GivenAddress, texts: AddressTexts): MachineAddress {
  if (channels !== undefined && channels.length > 0 && uri === undefined) return addressOfChannels(channels, texts);
  if (uri === undefined || (channels !== undefined && channels.length > 0)) {
    throw new RangeError("need either 'uri' or 'channels' argument");
  }
  return addressOfUri(uri, texts);
}

function addressOfChannels(channels: NonNullable<GivenAddress['channels']>, texts: AddressTexts): MachineAddress {
  if (channels.length > 1) throw new RangeError(texts.tooMany);
  const main = channels.find((channel) => channel['channel-type'] === 'main');
  if (main === undefined) throw new RangeError('Channel list has no main entry');
  return addressOfJson(main.addr);
}

/** @throws RangeError with QEMU's text */
export function addressOfUri(
  uri: string,
  { unknown, hasFiles = true }: Pick<AddressTexts, 'unknown'> & Partial<AddressTexts>,
): MachineAddress {
  if (uri.startsWith('file:') && !hasFiles) throw new RangeError(unknown(uri));
  // 7.2 looks for a descriptor without a name.
  if (uri === 'fd:' && !hasFiles) return { transport: 'socket', type: 'fd', str: '' };
  if (uri.startsWith('vsock:')) return vsockOf(uri.slice('vsock:'.length));
  if (uri.startsWith('rdma:')) return rdmaOf(uri.slice('rdma:'.length));
  try {
    const address = parseMigrationUri(uri);
    if (address.transport !== 'stdio') return address;
  } catch (error) {
    if (!(error instanceof RangeError) || !error.message.startsWith('unknown migration protocol')) throw error;
  }
  throw new RangeError(unknown(uri));
}

function vsockOf(text: string): MachineAddress {
  const [, cid, port] = /^([^:]{1,32}):([^,]{1,32})$/.exec(text) ?? [];
  if (cid === undefined || port === undefined) throw new RangeError(`error parsing address '${text}'`);
  return vsock(cid, port);
}

function vsock(cid: string, port: string): ImpossibleAddress {
  const bad = /^\d+$/.test(cid) ? (/^\d+$/.test(port) ? undefined : `port '${port}'`) : `cid '${cid}'`;
  const none = `'${cid}:${port}': Address family not supported by protocol`;
  return {
    transport: 'impossible',
    cannotConnect: bad === undefined ? `Failed to connect to ${none}` : `Failed to parse ${bad}`,
    cannotListen: bad === undefined ? `Failed to bind socket: ${none}` : `Failed to parse ${bad}`,
    isSynchronous: false,
  };
}

function rdmaOf(text: string): MachineAddress {
  if (!/^(\[[^\]]+\]|[^:]*):[^,]+/.test(text)) throw new RangeError(`error parsing address '${text}'`);
  return rdma;
}

/** As a QEMU that was built with RDMA answers without the hardware. */
const rdma: ImpossibleAddress = {
  transport: 'impossible',
  cannotConnect: 'RDMA ERROR: could not create CM channel',
  cannotListen: 'RDMA ERROR: could not create rdma event channel',
  isSynchronous: true,
};

/** Takes the descriptor that a monitor was given under a name. */
export type TakeDescriptor = (name: string) => number | undefined;

/** The address with the descriptor that its name stands for, which is taken. */
export function withDescriptor(address: MachineAddress, take: TakeDescriptor): MachineAddress {
  if (address.transport !== 'socket' || address.type !== 'fd') return address;
  const fd = take(address.str);
  return fd === undefined ? address : { ...address, fd };
}

/** An address in the form of QEMU's JSON, whose members were checked. */
function addressOfJson(addr: Readonly<Record<string, unknown>>): MachineAddress {
  const text = (name: string) => String(addr[name]);
  if (addr.transport === 'rdma') return rdma;
  if (addr.transport === 'exec') {
    const args = addr.args as string[];
    if (args.length === 0) throw new RangeError("Parameter 'args' expects a program");
    return { transport: 'exec', args };
  }
  if (addr.transport === 'file') {
    return { transport: 'file', filename: text('filename'), offset: Number(addr.offset) };
  }
  if (addr.type === 'vsock') return vsock(text('cid'), text('port'));
  if (addr.type === 'unix') return { transport: 'socket', type: 'unix', path: text('path') };
  if (addr.type === 'fd') return { transport: 'socket', type: 'fd', str: text('str') };
  const inet: InetAddress = { transport: 'socket', type: 'inet', host: text('host'), port: text('port') };
  if (addr.to !== undefined) inet.to = Number(addr.to);
  for (const [name, key] of inetFlags) {
    if (typeof addr[name] === 'boolean') inet[key] = addr[name];
  }
  return inet;
}

/** An address at which something listens, as `query-migrate` has it. */
export function socketAddressesOf(uri: string): object[] {
  const address = parseMigrationUri(uri);
  if (address.transport !== 'socket' || address.type === 'fd') return [];
  if (address.type === 'unix') return [{ type: 'unix', path: address.path }];
  const { host, port } = address;
  const v4 = { type: 'inet', host, port, ipv4: true };
  if (host === '::')
    return [
      { type: 'inet', host, port, ipv6: true },
      { ...v4, host: '0.0.0.0' },
    ];
  return [host.includes(':') ? { type: 'inet', host, port, ipv6: true } : v4];
}
