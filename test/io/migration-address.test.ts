/** Migration URIs mean what they mean to QEMU, and malformed ones are refused in QEMU's words. */
import { expect, test } from 'vitest';
import { formatMigrationUri, type MigrationAddress, parseMigrationUri } from '../../src/io/migration-address.ts';

const inet = (host: string, port: string, more: object = {}): MigrationAddress => ({
  ...{ transport: 'socket', type: 'inet', host, port },
  ...more,
});

test.each<[uri: string, address: MigrationAddress, canonical?: string]>([
  ['tcp:127.0.0.1:4444', inet('127.0.0.1', '4444')],
  ['tcp:host.example:http', inet('host.example', 'http')],
  ['tcp::4444', inet('', '4444')],
  ['tcp:[::1]:4444', inet('::1', '4444')],
  ['tcp:0:0', inet('0', '0')],
  ['tcp:h:1,to=9', inet('h', '1', { to: 9 })],
  ['tcp:h:1,ipv4', inet('h', '1', { ipv4: true }), 'tcp:h:1,ipv4=on'],
  ['tcp:h:1,ipv4=off,ipv6=on', inet('h', '1', { ipv4: false, ipv6: true })],
  ['tcp:h:1,ipv6=on,keep-alive=on', inet('h', '1', { ipv6: true, keepAlive: true })],
  ['tcp:h:1,mptcp', inet('h', '1', { mptcp: true }), 'tcp:h:1,mptcp=on'],
  ['tcp:h:1,xyz=3', inet('h', '1'), 'tcp:h:1'],
  ['unix:/run/a,b=c:d', { transport: 'socket', type: 'unix', path: '/run/a,b=c:d' }],
  ['fd:7', { transport: 'socket', type: 'fd', str: '7' }],
  ['fd:name', { transport: 'socket', type: 'fd', str: 'name' }],
  ['exec:cat > "a b"', { transport: 'exec', args: ['/bin/sh', '-c', 'cat > "a b"'] }],
  ['file:/a', { transport: 'file', filename: '/a', offset: 0 }],
  ['file:/a,b', { transport: 'file', filename: '/a,b', offset: 0 }],
  ['file:/a,offset=4096', { transport: 'file', filename: '/a', offset: 4096 }],
  ['file:/a,offset=0x1000', { transport: 'file', filename: '/a', offset: 4096 }, 'file:/a,offset=4096'],
  ['file:/a,offset=1.5M', { transport: 'file', filename: '/a', offset: 1.5 * 2 ** 20 }, 'file:/a,offset=1572864'],
  ['file:/a,offset=4k', { transport: 'file', filename: '/a', offset: 4096 }, 'file:/a,offset=4096'],
  ['-', { transport: 'stdio' }],
])('%s', (uri, address, canonical = uri) => {
  expect(parseMigrationUri(uri)).toEqual(address);
  expect(formatMigrationUri(address)).toBe(canonical);
  expect(parseMigrationUri(canonical)).toEqual(address);
});

test.each([
  ['', 'unknown migration protocol: '],
  ['defer', 'unknown migration protocol: defer'],
  ['tcp', 'unknown migration protocol: tcp'],
  ['TCP:h:1', 'unknown migration protocol: TCP:h:1'],
  ['toString:', 'unknown migration protocol: toString:'],
  ['tcp:x', "error parsing address 'x'"],
  ['tcp:', "error parsing address ''"],
  [`tcp:${'h'.repeat(65)}:1`, `error parsing address '${'h'.repeat(65)}:1'`],
  ['tcp:[::1:1', "error parsing IPv6 address '[::1:1'"],
  ['tcp::', "error parsing port in address ':'"],
  ['tcp:h:1,to=x', 'error parsing to= argument'],
  ['tcp:h:1,to=', 'error parsing to= argument'],
  ['tcp:h:1,ipv4=foo', "error parsing 'ipv4' flag '=foo'"],
  ['tcp:h:1,keep-alive=1', "error parsing 'keep-alive' flag '=1'"],
  ['unix:', 'invalid Unix socket address'],
  ['fd:', 'invalid file descriptor address'],
  ['file:/a,offset=zz', 'file URI has bad offset zz: Invalid argument'],
  ['file:/a,offset=', 'file URI has bad offset : Invalid argument'],
  ['file:/a,offset=-1', 'file URI has bad offset -1: Numerical result out of range'],
  ['vsock:2:99', 'vsock: is not supported: Node has no vsock sockets; use tcp:, unix:, fd: or exec:'],
  ['rdma:h:1', 'rdma: is not supported: it needs RDMA hardware and libraries; use tcp:'],
])('refuses %j', (uri, message) => {
  expect(() => parseMigrationUri(uri)).toThrow(new RangeError(message));
});

test('a program without a shell is written as a command of the shell', () => {
  const address: MigrationAddress = { transport: 'exec', args: ['/bin/cat', "it's", '-u'] };
  expect(formatMigrationUri(address)).toBe(`exec:/bin/cat 'it'\\''s' -u`);
});
