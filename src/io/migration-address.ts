/**
 * Where a migration goes to or comes from: QEMU's addresses, as URIs and in the form of its JSON. The texts of errors
 * are QEMU's.
 */

/** A TCP address. */
export interface InetAddress {
  transport: 'socket';
  type: 'inet';
  /** A name or a literal address, without brackets. Empty: all addresses of this host, for listening. */
  host: string;
  /** A number or the name of a service. Numbers count modulo 65536. */
  port: string;
  /** The last port to try, for listening. */
  to?: number;
  ipv4?: boolean;
  ipv6?: boolean;
  keepAlive?: boolean;
  /** Multipath TCP. Without support in the platform a connection is plain TCP, as it is where the peer has none. */
  mptcp?: boolean;
}

/** A unix socket. */
export interface UnixAddress {
  transport: 'socket';
  type: 'unix';
  path: string;
}

/** A descriptor that is already open. */
export interface FdAddress {
  transport: 'socket';
  type: 'fd';
  /** Its number, or the name that a QMP client gave it. */
  str: string;
  /** The descriptor of that name, if a client has passed it. Whoever uses the address closes it. */
  fd?: number;
}

/** A program whose standard input or output is the stream. */
interface ExecAddress {
  transport: 'exec';
  /** The program and its arguments. */
  args: string[];
}

/** A file. */
export interface FileAddress {
  transport: 'file';
  filename: string;
  /** Where the stream begins, in bytes. */
  offset: number;
  /** The file, if it is open already. Whoever uses the address closes it. */
  fd?: number;
}

/** Standard input or standard output. */
interface StdioAddress {
  transport: 'stdio';
}

/** Any address that a migration can use here. */
export type MigrationAddress = InetAddress | UnixAddress | FdAddress | ExecAddress | FileAddress | StdioAddress;

/**
 * Parses a migration URI: `tcp:HOST:PORT[,to=N][,ipv4=on|off][,ipv6=on|off][,keep-alive=on|off][,mptcp=on|off]`,
 * `unix:PATH`, `fd:N`, `exec:COMMAND`, `file:PATH[,offset=N]`, or `-`.
 * @throws RangeError with QEMU's text if it is malformed, or has a transport that is not supported
 */
export function parseMigrationUri(uri: string): MigrationAddress {
  if (uri === '-') return { transport: 'stdio' };
  const at = uri.indexOf(':') + 1;
  const scheme = Object.hasOwn(schemes, uri.slice(0, at)) ? schemes[uri.slice(0, at)] : undefined;
  if (scheme === undefined) throw new RangeError(`unknown migration protocol: ${uri}`);
  return scheme(uri.slice(at));
}

const schemes: Readonly<Record<string, (rest: string) => MigrationAddress>> = {
  'tcp:': parseInet,
  'unix:': (path) => {
    if (path === '') throw new RangeError('invalid Unix socket address');
    return { transport: 'socket', type: 'unix', path };
  },
  'fd:': (str) => {
    if (str === '') throw new RangeError('invalid file descriptor address');
    return { transport: 'socket', type: 'fd', str };
  },
  'exec:': (command) => ({ transport: 'exec', args: ['/bin/sh', '-c', command] }),
  'file:': parseFile,
  'vsock:': () => {
    throw new RangeError('vsock: is not supported: Node has no vsock sockets; use tcp:, unix:, fd: or exec:');
  },
  'rdma:': () => {
    throw new RangeError('rdma: is not supported: it needs RDMA hardware and libraries; use tcp:');
  },
};

function parseInet(text: string): InetAddress {
  const bracketed = text.startsWith('[');
  const pattern = bracketed ? /^\[([^\]]{1,64})\]:([^,]{1,32})(.*)$/s : /^([^:]{0,64}):([^,]{1,32})(.*)$/s;
  const [, host, port, options] = pattern.exec(text) ?? [];
  if (host === undefined || port === undefined || options === undefined) {
    if (text.startsWith(':')) throw new RangeError(`error parsing port in address '${text}'`);
    throw new RangeError(`error parsing ${bracketed ? 'IPv6 ' : ''}address '${text}'`);
  }
  const address: InetAddress = { transport: 'socket', type: 'inet', host, port };
  const to = parseTo(options);
  if (to !== undefined) address.to = to;
  for (const [name, key] of inetFlags) {
    const value = parseFlag(options, name);
    if (value !== undefined) address[key] = value;
  }
  return address;
}

/** The flags of a TCP address, under QEMU's names and ours. */
export const inetFlags = [
  ['ipv4', 'ipv4'],
  ['ipv6', 'ipv6'],
  ['keep-alive', 'keepAlive'],
  ['mptcp', 'mptcp'],
] as const;

function parseTo(options: string): number | undefined {
  const at = options.indexOf(',to=');
  if (at < 0) return undefined;
  const [, digits] = /^(\d+)(?:,|$)/.exec(options.slice(at + 4)) ?? [];
  if (digits === undefined) throw new RangeError('error parsing to= argument');
  return Number(digits);
}

/** The value of `,NAME`, `,NAME=on` or `,NAME=off`. Undefined if it is not given. */
function parseFlag(options: string, name: string): boolean | undefined {
  const at = options.indexOf(`,${name}`);
  if (at < 0) return undefined;
  const rest = options.slice(at + 1 + name.length);
  const [, value] = /^(=on|=off|)(?:,|$)/.exec(rest) ?? [];
  if (value === undefined) throw new RangeError(`error parsing '${name}' flag '${rest}'`);
  return value !== '=off';
}

const offsetOption = ',offset=';

function parseFile(text: string): FileAddress {
  const at = text.indexOf(offsetOption);
  if (at < 0) return { transport: 'file', filename: text, offset: 0 };
  return { transport: 'file', filename: text.slice(0, at), offset: parseOffset(text.slice(at + offsetOption.length)) };
}

/** Powers of two of the suffixes of sizes. */
const suffixes: Readonly<Record<string, number>> = { '': 0, B: 0, K: 10, M: 20, G: 30, T: 40, P: 50, E: 60 };

function parseOffset(text: string): number {
  const bad = (reason: string) => new RangeError(`file URI has bad offset ${text}: ${reason}`);
  if (/^\s*-\d/.test(text)) throw bad('Numerical result out of range');
  const [, hex, decimal, suffix = ''] = /^(?:(0x[0-9a-f]+)|(\d+(?:\.\d*)?)([bkmgtpe]?))$/i.exec(text) ?? [];
  if (hex === undefined && decimal === undefined) throw bad('Invalid argument');
  const bytes = hex === undefined ? Number(decimal) * 2 ** (suffixes[suffix.toUpperCase()] as number) : Number(hex);
  if (!Number.isSafeInteger(Math.floor(bytes))) throw bad('Numerical result out of range');
  if (suffix === '' && !Number.isInteger(bytes)) throw bad('Invalid argument');
  return Math.floor(bytes);
}

/** Writes an address as a URI. Programs with arguments become a command of the shell. */
export function formatMigrationUri(address: MigrationAddress): string {
  if (address.transport === 'stdio') return '-';
  if (address.transport === 'exec') return `exec:${formatCommand(address.args)}`;
  if (address.transport === 'file') {
    const { filename, offset } = address;
    return offset === 0 && !filename.includes(offsetOption) ? `file:${filename}` : `file:${filename},offset=${offset}`;
  }
  if (address.type === 'unix') return `unix:${address.path}`;
  if (address.type === 'fd') return `fd:${address.str}`;
  const { host, port, to } = address;
  const given = inetFlags.filter(([, key]) => address[key] !== undefined);
  return [
    `tcp:${host.includes(':') ? `[${host}]` : host}:${port}`,
    ...(to === undefined ? [] : [`to=${to}`]),
    ...given.map(([name, key]) => `${name}=${address[key] ? 'on' : 'off'}`),
  ].join(',');
}

function formatCommand(args: readonly string[]): string {
  const [program, option, command] = args;
  if (args.length === 3 && program === '/bin/sh' && option === '-c') return command as string;
  return args.map((arg) => (/^[\w./:=@%+-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", `'\\''`)}'`)).join(' ');
}
