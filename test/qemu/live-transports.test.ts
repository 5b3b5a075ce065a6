/**
 * Every transport with a real QEMU at the other end: `receive` and the listening side of `relay` take a source over each, and
 * `send` and the other side of `relay` reach a target over each. RAM that arrives equals that of the stopped source.
 *
 * VMFERRY_QEMU=full runs these; the essential subset of other files has TCP, unix sockets and programs.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { LiveCommand } from './live-command.ts';
import { type Loaded, loadInto } from './load.ts';
import { fillStripes, type Machine, pagesOfOurs, startDestination, startMachine } from './machine.ts';
import { Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences, findAddresses, readTruth, type Truth } from './truth.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const machine: Machine = { version: '10.0', machine: 'bare' };
type CommandOptions = ConstructorParameters<typeof LiveCommand>[1];

/** Where a command listens, and where the source migrates to. */
interface Inward {
  uri: string;
  options?: CommandOptions;
  /** Called when the command has started. */
  started?: (command: LiveCommand) => void;
  /** QEMU's URI. Default: the one that the command prints. */
  from?: string;
  /** The source ends before the command begins. */
  isLate?: boolean;
}

/** A target that waits, and where a command finds it. */
interface Outward {
  uri: string;
  options?: CommandOptions;
  started?: (command: LiveCommand) => void;
  /** QEMU's URI for what the command has written, once it has ended. */
  afterwards?: string;
}

function makeFifo(dir: string): string {
  const path = join(dir, 'fifo');
  execFileSync('mkfifo', [path]);
  return path;
}

const portOf = (server: Server) => (server.address() as AddressInfo).port;

/** Passes on what the source sends to the input of a command. */
async function pumpInto(path: string): Promise<(command: LiveCommand) => void> {
  let source: Promise<Socket>;
  const server = createServer();
  source = new Promise((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return ({ child }) => {
    void source.then((socket) => {
      server.close();
      socket.pipe(child.stdin as NodeJS.WritableStream);
    });
  };
}

const inward: Record<string, (dir: string) => Promise<Inward>> = {
  'tcp, IPv4': async () => ({ uri: 'tcp:127.0.0.1:0' }),
  'tcp, IPv6': async () => ({ uri: 'tcp:[::1]:0' }),
  'tcp, a name': async () => ({ uri: 'tcp:localhost:0' }),
  unix: async (dir) => ({ uri: `unix:${join(dir, 'listening')}` }),
  'fd, a socket that listens': async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
    const from = `tcp:127.0.0.1:${portOf(server)}`;
    return { uri: 'fd:3', options: { inherited: [fd] }, started: () => void server.close(), from };
  },
  exec: async (dir) => {
    const fifo = makeFifo(dir);
    return { uri: `exec:cat ${fifo}`, from: `exec:cat > ${fifo}` };
  },
  'file, with an offset': async (dir) => {
    const uri = `file:${join(dir, 'saved')},offset=12288`;
    return { uri, from: uri, isLate: true };
  },
  'standard input': async (dir) => {
    const path = join(dir, 'pump');
    return { uri: '-', options: { stdin: 'pipe' }, started: await pumpInto(path), from: `unix:${path}` };
  },
};

/** Lets a target wait at an address, and returns the port that it chose. */
async function waitAt(target: Qemu, uri: string): Promise<string> {
  await target.execute('migrate-incoming', { uri });
  const { 'socket-address': addresses } = await target.queryMigrate();
  return (addresses as { port: string }[] | undefined)?.[0]?.port ?? '';
}

const outward: Record<string, (target: Qemu) => Promise<Outward>> = {
  'tcp, IPv4': async (target) => ({ uri: `tcp:127.0.0.1:${await waitAt(target, 'tcp:127.0.0.1:0')}` }),
  'tcp, IPv6': async (target) => ({ uri: `tcp:[::1]:${await waitAt(target, 'tcp:[::1]:0')}` }),
  'tcp, a name': async (target) => ({ uri: `tcp:localhost:${await waitAt(target, 'tcp:localhost:0')}` }),
  unix: async (target) => {
    const uri = `unix:${join(target.dir, 'incoming')}`;
    await waitAt(target, uri);
    return { uri };
  },
  'fd, a socket': async (target) => {
    const path = join(target.dir, 'incoming');
    await waitAt(target, `unix:${path}`);
    const started = ({ child }: LiveCommand) => {
      const line = connect(path);
      const end = child.stdio[3] as Duplex;
      for (const each of [line, end]) each.on('error', () => {});
      end.pipe(line);
      line.pipe(end);
    };
    return { uri: 'fd:3', options: { inherited: ['pipe'] }, started };
  },
  exec: async (target) => {
    const fifo = makeFifo(target.dir);
    await waitAt(target, `exec:cat ${fifo}`);
    return { uri: `exec:cat > ${fifo}` };
  },
  'file, with an offset': async (target) => {
    const uri = `file:${join(target.dir, 'written')},offset=12288`;
    return { uri, afterwards: uri };
  },
  'standard output': async (target) => {
    const path = join(target.dir, 'written');
    const stdout = openSync(path, 'w');
    return { uri: '-', options: { stdout }, started: () => closeSync(stdout), afterwards: `exec:cat ${path}` };
  },
};

/** Migrates a guest into a command. Returns the truth. */
async function migrateInto(way: Inward, dir: string, begin: () => LiveCommand): Promise<Truth> {
  const running = await startMachine(machine);
  const { qemu } = running;
  try {
    await fillStripes(running, pagesOfOurs(machine));
    const addresses = await findAddresses(qemu);
    if (way.isLate === true) await qemu.migrate(way.from as string);
    const command = begin();
    way.started?.(command);
    if (way.isLate !== true) await qemu.migrate(way.from ?? (await command.uri()));
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    return await readTruth(qemu, dir, addresses);
  } finally {
    running.guest?.close();
    await qemu[Symbol.asyncDispose]();
  }
}

/** Expects a target to have the guest. */
async function expectArrived(target: Qemu, { afterwards }: Outward, truth: Truth): Promise<void> {
  if (afterwards !== undefined) await target.execute('migrate-incoming', { uri: afterwards });
  await target.waitForMigration();
  expect(differences(await readTruth(target, target.dir, await findAddresses(target)), truth)).toEqual([]);
}

/** A file with a guest, and its truth. Made once. */
let kept: Promise<{ file: string; loaded: Loaded }> | undefined;
async function keep() {
  const dir = Qemu.makeDir();
  const file = join(dir, 'guest.mapped-ram');
  const way = { uri: `unix:${join(dir, 'kept')}` };
  await migrateInto(way, dir, () => new LiveCommand(['receive', way.uri, file]));
  return { file, loaded: await loadInto({ ...machine, route: 'mapped-ram', file }) };
}

describe.skipIf(!isFull || lacksQemu('10.0'))('transports', () => {
  test.each(Object.entries(inward))('receive from %s', async (_, open) => {
    const dir = Qemu.makeDir();
    const file = join(dir, 'guest.mapped-ram');
    const way = await open(dir);
    const truth = await migrateInto(way, dir, () => new LiveCommand(['receive', way.uri, file], way.options));
    const loaded = await loadInto({ ...machine, route: 'mapped-ram', file });
    expect(differences(loaded.truth, truth)).toEqual([]);
    loaded.dispose();
  });

  test.each(Object.entries(outward))('send to %s', async (_, open) => {
    kept ??= keep();
    const { file, loaded } = await kept;
    await using target = await startDestination(machine);
    const way = await open(target);
    await using command = new LiveCommand(['send', file, way.uri, '--quiet'], way.options);
    way.started?.(command);
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    await expectArrived(target, way, loaded.truth);
  });

  test.each(Object.entries(inward))('relay from %s', async (_, open) => {
    const dir = Qemu.makeDir();
    await using target = await startDestination(machine);
    const out = await (outward.unix as (target: Qemu) => Promise<Outward>)(target);
    const way = await open(dir);
    const truth = await migrateInto(way, dir, () => new LiveCommand(['relay', way.uri, out.uri], way.options));
    await expectArrived(target, out, truth);
  });

  test.each(Object.entries(outward))('relay to %s', async (_, open) => {
    const dir = Qemu.makeDir();
    await using target = await startDestination(machine);
    const out = await open(target);
    const way: Inward = { uri: 'tcp:127.0.0.1:0', ...(out.started && { started: out.started }) };
    const begin = () => new LiveCommand(['relay', way.uri, out.uri, '--quiet'], out.options);
    await expectArrived(target, out, await migrateInto(way, dir, begin));
  });
});
