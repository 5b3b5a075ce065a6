/** Users' objects are defined as in QEMU, and refused in its words. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { authzList, authzListFile } from '../../src/io/node/authz.ts';
import { parseObjectSpec } from '../../src/io/node/object-spec.ts';
import { versionsOf } from '../../src/io/node/tls-handshake.ts';
import { UserObjects } from '../../src/io/node/tls-objects.ts';
import { TlsDirectories } from '../tls-directories.ts';

const directories = new TlsDirectories();
afterAll(() => directories.remove());

const added = (...specs: (string | Record<string, unknown>)[]) => {
  const user = new UserObjects();
  for (const spec of specs) user.add(spec);
  return user;
};

const server = directories.server();
const expired = directories.server('expired');
const unmatched = directories.server('server', { 'server-key.pem': 'client1-key.pem' });
const otherCa = directories.server('server', { 'ca-cert.pem': 'other-ca-cert.pem' });
const locked = directories.client('client1', { 'client-key.pem': 'locked-key.pem' });
const junk = directories.server();
writeFileSync(join(junk, 'server-cert.pem'), 'junk');
const junkCa = directories.server();
writeFileSync(join(junkCa, 'ca-cert.pem'), 'junk');
const keys = directories.psk('other:0011\nqemu:zz\n');

const x509 = (rest: string) => `tls-creds-x509,id=tls0,endpoint=server${rest}`;
const cannotLoad = (directory: string, side: string) =>
  `Cannot load certificate '${directory}/${side}-cert.pem' & key '${directory}/${side}-key.pem'`;

test.each([
  ['id=x', "Parameter 'qom-type' is missing"],
  ['tls-creds-x509', "Parameter 'id' is missing"],
  ['tls-creds-x509,id=1 a', "Parameter 'id' expects an identifier"],
  ['nope,id=x', "Parameter 'qom-type' does not accept value 'nope'"],
  ['toString,id=x', "Parameter 'qom-type' does not accept value 'toString'"],
  ['{"qom-type":', 'JSON parse error, expecting value'],
  [x509(''), "Missing 'dir' property value"],
  [x509(',dir=/nonexistent'), 'Unable to access credentials /nonexistent/ca-cert.pem: No such file or directory'],
  [x509(`,dir=${server},foo=1`), "Parameter 'foo' is unexpected"],
  ['tls-creds-x509,id=x,endpoint=foo,dir=/x', "Parameter 'endpoint' does not accept value 'foo'"],
  [x509(`,dir=${server},verify-peer=maybe`), "Parameter 'verify-peer' expects 'on' or 'off'"],
  [x509(`,dir=${expired}`), `The server certificate ${expired}/server-cert.pem has expired`],
  [
    x509(`,dir=${otherCa}`),
    `Our own certificate ${otherCa}/server-cert.pem failed validation against ${otherCa}/ca-cert.pem: The certificate hasn't got a known issuer`,
  ],
  [x509(`,dir=${unmatched}`), `${cannotLoad(unmatched, 'server')}: The certificate and the given key do not match.`],
  [`tls-creds-x509,id=x,dir=${locked}`, `${cannotLoad(locked, 'client')}: Decryption has failed.`],
  [`tls-creds-x509,id=x,dir=${locked},passwordid=word`, "No secret with id 'word'"],
  [
    x509(`,dir=${junk}`),
    `Unable to import server certificate ${junk}/server-cert.pem: Base64 unexpected header error.`,
  ],
  [x509(`,dir=${junkCa}`), `Unable to import CA certificate list ${junkCa}/ca-cert.pem`],
  [
    'tls-creds-psk,id=x,dir=/nonexistent',
    'Unable to access credentials /nonexistent/keys.psk: No such file or directory',
  ],
  [`tls-creds-psk,id=x,dir=${keys},username=nobody`, `Username nobody not found in PSK file ${keys}/keys.psk`],
  [`tls-creds-psk,id=x,dir=${keys}`, 'Cannot set PSK client credentials: Error in parsing.'],
  [`tls-creds-psk,id=x,endpoint=server,dir=${keys},username=x`, 'username should not be set when endpoint=server'],
  ['authz-simple,id=x', "Parameter 'identity' is missing"],
  ['authz-list,id=x,rules.0.match=y', "Parameter 'rules[0].policy' is missing"],
  ['authz-list,id=x,rules.0.policy=allow', "Parameter 'rules[0].match' is missing"],
  ['authz-list,id=x,rules=y', "Invalid parameter type for 'rules', expected: array"],
  ['authz-list,id=x,policy=y', "Parameter 'policy' does not accept value 'y'"],
  ['authz-list-file,id=x', "Parameter 'filename' is missing"],
  ['authz-list-file,id=x,filename=/nonexistent', "Unable to read '/nonexistent': No such file or directory"],
  ['secret,id=x', "Either 'file' or 'data' must be provided"],
  ['secret,id=x,data=a,file=b', "'file' and 'data' are mutually exclusive"],
  [
    'secret,id=x,file=/nonexistent',
    'Unable to read /nonexistent: Failed to open file “/nonexistent”: No such file or directory',
  ],
  ['secret,id=x,format=base64,data=%%%', 'Base64 data contains invalid characters'],
  ['secret,id=x,data=a,keyid=b', 'secrets that are encrypted are not supported'],
])('refuses %s', (spec, message) => {
  expect(() => added(spec)).toThrow(message);
});

test('refuses a second object with the same id, and removes objects', () => {
  const user = added('secret,id=x,data=a');
  expect(() => user.add('secret,id=x,data=b')).toThrow(
    "attempt to add duplicate property 'x' to object (type 'container')",
  );
  user.remove('x');
  expect(user.has('x')).toBe(false);
  expect(() => user.remove('x')).toThrow("object 'x' not found");
});

test('a client needs neither a certificate nor a key', () => {
  const user = added(`tls-creds-x509,id=tls0,dir=${directories.client()}`);
  expect(user.clientTls('tls0')).toBeDefined();
});

test.each([
  ['clientTls', 'nope', "No TLS credentials with id 'nope'"],
  ['clientTls', 'word', "Object with id 'word' is not TLS credentials"],
  ['clientTls', 'server', 'Expected TLS credentials for a client endpoint'],
  ['serverTls', 'client', 'Expected TLS credentials for a server endpoint'],
  ['clientTls', 'anon', /^tls-creds-anon is not supported: /],
] as const)('%s of %s is refused', (method, id, message) => {
  const user = added(
    `tls-creds-x509,id=server,endpoint=server,dir=${server}`,
    `tls-creds-x509,id=client,endpoint=client,dir=${directories.client('client1')}`,
    'tls-creds-anon,id=anon,endpoint=client',
    'secret,id=word,data=a',
  );
  expect(() => user[method](id)).toThrow(message);
});

describe('a definition', () => {
  const parts = (spec: string | Record<string, unknown>) => {
    const { type, id, properties } = parseObjectSpec(spec);
    return { type, id, dir: properties.string('dir'), on: properties.boolean('verify-peer') };
  };

  test.each([
    ['tls-creds-psk,id=a,dir=/x', '/x', undefined],
    ['qom-type=tls-creds-psk,id=a,dir=/x,,y=z,verify-peer=off', '/x,y=z', false],
    ['tls-creds-psk,dir=,,,id=a,verify-peer=yes', ',', true],
    ['{"qom-type": "tls-creds-psk", "id": "a", "dir": "/x,y", "verify-peer": true}', '/x,y', true],
    [{ 'qom-type': 'tls-creds-psk', id: 'a', dir: '/x', 'verify-peer': false }, '/x', false],
  ])('%s', (spec, dir, on) => {
    expect(parts(spec)).toEqual({ type: 'tls-creds-psk', id: 'a', dir, on });
  });

  test('has properties that belong to nobody else', () => {
    expect(() => parseObjectSpec('secret,id=a,__proto__.polluted=1')).not.toThrow();
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
  });
});

describe('a list of who may connect', () => {
  const list = (text: string) => authzList(parseObjectSpec(`authz-list,id=x,${text}`).properties);

  test.each([
    ['policy=allow', 'anybody', true],
    ['policy=deny', 'anybody', false],
    ['rules.0.match=a,rules.0.policy=allow', 'a', true],
    ['rules.0.match=a,rules.0.policy=allow', 'ab', false],
    ['rules.0.match=a*,rules.0.policy=allow', 'ab', false],
    ['rules.0.match=a*,rules.0.policy=allow,rules.0.format=glob', 'ab', true],
    ['rules.0.match=?.b,rules.0.policy=allow,rules.0.format=glob', 'a.b', true],
    ['rules.0.match=?.b,rules.0.policy=allow,rules.0.format=glob', 'axb', false],
    ['rules.0.match=[a-c]x,rules.0.policy=allow,rules.0.format=glob', 'bx', true],
    ['rules.0.match=[!a-c]x,rules.0.policy=allow,rules.0.format=glob', 'bx', false],
    ['rules.0.match=\\*,rules.0.policy=allow,rules.0.format=glob', 'x', false],
    ['rules.0.match=a,rules.0.policy=deny,policy=allow', 'a', false],
    ['rules.0.match=a,rules.0.policy=deny,rules.1.match=a,rules.1.policy=allow', 'a', false],
  ])('%s: %s', (text, identity, isWelcome) => {
    expect(list(text)(identity)).toBe(isWelcome);
  });

  test('in a file is read again', () => {
    const path = join(directories.root, 'list.json');
    const write = (policy: string) => writeFileSync(path, JSON.stringify({ rules: [{ match: 'a', policy }] }));
    write('allow');
    const authz = authzListFile(parseObjectSpec(`authz-list-file,id=x,filename=${path}`).properties);
    expect(authz('a')).toBe(true);
    write('deny');
    expect(authz('a')).toBe(false);
    writeFileSync(path, '{');
    expect(authz('a')).toBe(false);
  });
});

test.each([
  [undefined, 'TLSv1.2', 'TLSv1.2'],
  ['NORMAL', 'TLSv1.2', 'TLSv1.2'],
  ['NORMAL:+VERS-TLS1.3', 'TLSv1.2', 'TLSv1.3'],
  ['NORMAL:-VERS-ALL:+VERS-TLS1.3', 'TLSv1.3', 'TLSv1.3'],
  ['NORMAL:-VERS-ALL:+VERS-TLS1.2', 'TLSv1.2', 'TLSv1.2'],
])('the priority %s', (priority, minVersion, maxVersion) => {
  expect(versionsOf(priority)).toEqual({ minVersion, maxVersion });
});

test('TLS 1.3 comes with a warning', () => {
  const user = added(`${x509(`,dir=${server}`)},priority=NORMAL:+VERS-TLS1.3`, `tls-creds-x509,id=b,dir=${server}`);
  expect(user.warningOf('tls0')).toMatch(/^TLS 1\.3 was asked for/);
  expect(user.warningOf('b')).toBe(undefined);
});

test('the priority may leave nothing', () => {
  expect(() => versionsOf('NORMAL:-VERS-ALL')).toThrow(RangeError);
});
