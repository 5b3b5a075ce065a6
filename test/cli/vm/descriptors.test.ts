/** Descriptors that a client passes to `vmferry vm`: getfd and add-fd, and migrations through what they name. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { DescriptorClient } from '../../support/descriptor-client.ts';
import { heldBy, playDescriptors } from '../../support/descriptor-script.ts';
import { VmProcess } from '../../support/vm-process.ts';

const noDescriptor = 'No file descriptor supplied via SCM_RIGHTS';
const open: number[] = [];

const sockets: Socket[] = [];

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const fd of open.splice(0)) closeSync(fd);
});

/** Opens a file of the test. */
function opened(path: string, flags: string | number): number {
  const fd = openSync(path, flags);
  open.push(fd);
  return fd;
}

/** A VM and the client of its first monitor, which may pass some descriptors. */
class Greeted {
  private constructor(
    readonly vm: VmProcess,
    readonly client: DescriptorClient,
    readonly fds: readonly number[],
  ) {}

  static async start(args: string[], fdsIn: (dir: string) => number[]): Promise<Greeted> {
    const vm = await VmProcess.startAlone(...args);
    const fds = fdsIn(vm.dir);
    return new Greeted(vm, await DescriptorClient.connect(vm.socket, fds), fds);
  }

  /** How often the VM has a file of its directory open. */
  held(name: string): number {
    return heldBy(this.vm.child.pid as number, [join(this.vm.dir, name)]);
  }

  /** Its RAM. */
  async memory(): Promise<Buffer> {
    const filename = join(this.vm.dir, 'memory');
    await this.client.execute('pmemsave', { val: 0, size: 4 << 20, filename });
    return readFileSync(filename);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.leave();
    await this.vm[Symbol.asyncDispose]();
  }
}

const small = ['--memory', '4M', '--workload', 'write:rate=1M,working-set=2M,pattern=random'];

describe.each(['7.2', '9.0', '10.0'])('as %s', (release) => {
  it('names descriptors for each monitor, keeps sets of them, and closes what nobody wants', async () => {
    await using vm = await VmProcess.startAlone('--compat', release);
    const [one, two] = [join(vm.dir, 'one'), join(vm.dir, 'two')];
    const answers = await playDescriptors({
      ...{ first: vm.socket, second: vm.second },
      ...{ writing: opened(two, 'w'), reading: opened(writeEmpty(one), 'r') },
      held: () => heldBy(vm.child.pid as number, [one, two]),
    });
    const isOld = release !== '10.0';
    const again = { fd: 0, opaque: 'again' };
    const [zero, first, second] = [
      { 'fdset-id': 0, fds: [{ fd: 0 }, again] },
      { 'fdset-id': 1, fds: [{ fd: 0, opaque: 'note' }] },
      { 'fdset-id': 2, fds: [{ fd: 0 }] },
    ];
    const five = (...fds: object[]) => ({ 'fdset-id': 5, fds });
    expect(answers).toEqual([
      ...[noDescriptor, noDescriptor, "File descriptor named 'x' not found"],
      ...["File descriptor named 'fdset-id:7' not found", "File descriptor named 'fdset-id:7, fd:3' not found", []],
      ...['held: 0', "Parameter 'fdname' expects a name not starting with a digit", 'held: 0'],
      ...[{}, {}, {}, 'held: 2', {}, {}, noDescriptor, 'held: 3'],
      ...[{}, {}, "File descriptor named 'many' not found", 'held: 1'],
      ...[0, 1, 5, 5].map((set) => ({ fd: 0, 'fdset-id': set })),
      ...["Parameter 'fdset-id' expects a non-negative value", ...[0, 2].map((set) => ({ fd: 0, 'fdset-id': set }))],
      [five({ fd: 0, opaque: 'five' }, { fd: 0 }), second, first, zero],
      ...["File descriptor named 'fdset-id:5, fd:9999' not found", {}, [five({ fd: 0 }), second, first, zero]],
      ...[{}, [second, first, zero], 'held: 5'],
      // Before 9.1, what is removed goes when the guest runs.
      ...[{}, {}, isOld ? [second, first, zero] : [first, zero], {}],
      ...[{}, {}, {}],
      ...["File descriptor named 'a' not found", isOld ? [second, first, zero] : [first, zero]],
      ...[noDescriptor, isOld ? [] : [first, zero], {}, isOld ? 'held: 0' : 'held: 3'],
    ]);
  });
});

function writeEmpty(path: string): string {
  writeFileSync(path, '');
  return path;
}

it('takes descriptors with oob, each with the command that it came with', async () => {
  await using vm = await VmProcess.startAlone();
  const [one, two] = ['one', 'two'].map((name) => opened(join(vm.dir, name), 'w')) as [number, number];
  await using client = await DescriptorClient.connect(vm.socket, [one, two], { enable: ['oob'] });
  const say = (command: string, given: object, ...passed: number[]) =>
    client.send(JSON.stringify({ execute: command, arguments: given }), passed);
  // It takes a while, so those behind it wait in the monitor.
  say('pmemsave', { val: 0, size: 64 << 20, filename: join(vm.dir, 'memory') });
  say('add-fd', { 'fdset-id': 1 }, one);
  say('add-fd', { 'fdset-id': 2 }, two);
  say('add-fd', { 'fdset-id': 3 });
  const answers = [];
  for (let i = 0; i < 4; i++) answers.push(await client.answer());
  expect(answers).toMatchObject([{}, { 'fdset-id': 1 }, { 'fdset-id': 2 }, noDescriptor]);
  const held = (name: string) => heldBy(vm.child.pid as number, [join(vm.dir, name)]);
  expect([held('one'), held('two')]).toEqual([1, 1]);
});

it('closes what a client that dies has passed and nobody has taken', async () => {
  await using one = await Greeted.start([], (dir) => [opened(join(dir, 'one'), 'w')]);
  await one.client.execute('query-name', {}, ...one.fds);
  expect(one.held('one')).toBe(1);
  one.client.send('{"execute": "getfd", "argum', one.fds);
  await one.client.leave();
  await using next = await DescriptorClient.connect(one.vm.socket);
  expect([one.held('one'), await next.execute('getfd', { fdname: 'x' })]).toEqual([0, noDescriptor]);
});

/** Makes both ends of a line: what the source writes to, and what the target reads. */
type Line = (dir: string) => Promise<{ near: number; far: number }> | { near: number; far: number };

const lines: Record<string, Line> = {
  pipe(dir) {
    const fifo = join(dir, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const far = opened(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    return { near: opened(fifo, 'w'), far };
  },
  async socket(dir) {
    const server = createServer({ pauseOnConnect: true });
    await new Promise<void>((resolve) => server.listen(join(dir, 'pair'), resolve));
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
    const near = connect(join(dir, 'pair'));
    const far = await accepted;
    server.close();
    sockets.push(near, far);
    const fdOf = (socket: Socket) => (socket as unknown as { _handle: { fd: number } })._handle.fd;
    return { near: fdOf(near), far: fdOf(far) };
  },
};

describe('a migration', () => {
  it.each(Object.keys(lines))('goes through a %s that getfd has named', async (kind) => {
    await using source = await Greeted.start(small, () => []);
    const { near, far } = await (lines[kind] as Line)(source.vm.dir);
    await source.client.leave();
    await using from = await DescriptorClient.connect(source.vm.socket, [near]);
    await using target = await Greeted.start(['--incoming', 'defer', '--paused'], () => [far]);
    await from.execute('getfd', { fdname: 'out' }, near);
    await target.client.execute('getfd', { fdname: 'in' }, far);
    expect(await target.client.execute('migrate-incoming', { uri: 'fd:in' })).toEqual({});
    expect(await from.execute('migrate', { uri: 'fd:out' })).toEqual({});
    expect(await from.migrated()).toEqual({ status: 'completed' });
    expect(await target.client.migrated()).toEqual({ status: 'completed' });
    const filename = join(source.vm.dir, 'sent');
    await from.execute('pmemsave', { val: 0, size: 4 << 20, filename });
    expect((await target.memory()).equals(readFileSync(filename))).toBe(true);
    expect(await from.execute('closefd', { fdname: 'out' })).toBe("File descriptor named 'out' not found");
  });

  it('goes into a file that getfd has named, from where it stands, and takes the name', async () => {
    await using source = await Greeted.start(small, (dir) => [opened(join(dir, 'file'), 'w+')]);
    const { client, fds } = source;
    writeSync(fds[0] as number, 'before');
    await client.execute('getfd', { fdname: 'file' }, ...fds);
    expect(await client.execute('migrate', { uri: 'fd:file' })).toEqual({});
    expect(await client.migrated()).toEqual({ status: 'completed' });
    expect(readFileSync(join(source.vm.dir, 'file')).subarray(0, 10).toString('latin1')).toBe('beforeQEVM');
    expect(source.held('file')).toBe(0);
    await client.execute('cont');
    for (const uri of ['fd:file', 'fd:77']) {
      const message = `File descriptor named '${uri.slice(3)}' has not been found`;
      expect(await client.execute('migrate', { uri })).toBe(message);
      expect(await client.migrated()).toEqual({ status: 'failed', error: message });
    }
  });

  it.each([
    ['9.0', 'Unable to write to file: Bad file descriptor'],
    ['10.0', 'ram_save_setup failed: Input/output error'],
  ])('fails as in QEMU %s if the descriptor cannot be written', async (release, error) => {
    const args = ['--compat', release, ...small];
    await using source = await Greeted.start(args, (dir) => [opened(writeEmpty(join(dir, 'file')), 'r')]);
    const { client, fds } = source;
    await client.execute('getfd', { fdname: 'read-only' }, ...fds);
    expect(await client.execute('migrate', { uri: 'fd:read-only' })).toEqual({});
    expect(await client.migrated()).toEqual({ status: 'failed', error });
    expect(source.held('file')).toBe(0);
  });

  it.each([false, true])('goes into a set of descriptors and comes out of one (mapped-ram: %s)', async (isMapped) => {
    const capabilities = [{ capability: 'mapped-ram', state: isMapped }];
    await using source = await Greeted.start(small, (dir) => {
      const path = join(dir, 'file');
      return [opened(path, 'w'), opened(path, 'r')];
    });
    const { client, fds } = source;
    const [writing, readable] = fds as [number, number];
    await client.execute('migrate-set-capabilities', { capabilities });
    // The one that can be read does not count.
    await client.execute('add-fd', { 'fdset-id': 4 }, readable);
    await client.execute('add-fd', { 'fdset-id': 4 }, writing);
    for (const offset of [0, 8192]) {
      const uri = `file:/dev/fdset/4,offset=${offset}`;
      expect(await client.execute('migrate', { uri })).toEqual({});
      expect(await client.migrated()).toEqual({ status: 'completed' });
      if (offset === 0) await client.execute('cont');
    }
    expect(source.held('file')).toBe(2);

    await using target = await Greeted.start(['--incoming', 'defer', '--paused'], () => [readable]);
    await target.client.execute('migrate-set-capabilities', { capabilities });
    await target.client.execute('add-fd', { 'fdset-id': 9 }, readable);
    expect(await target.client.execute('migrate-incoming', { uri: 'file:/dev/fdset/9,offset=8192' })).toEqual({});
    expect(await target.client.migrated()).toEqual({ status: 'completed' });
    expect((await target.memory()).equals(await source.memory())).toBe(true);
  });

  const words: Record<string, [string, string, string]> = {
    '9.0': ['No such file or directory', 'Permission denied', 'Invalid argument'],
  };
  it.each(['9.0', '10.0'])('is refused as in QEMU %s by a set that has nothing for it', async (release) => {
    const args = ['--compat', release, ...small];
    await using source = await Greeted.start(args, (dir) => [opened(join(dir, 'file'), 'w+')]);
    const { client, fds } = source;
    await client.execute('add-fd', { 'fdset-id': 1 }, ...fds);
    const old = words[release];
    const text = (path: string, index: 0 | 1 | 2, recent: string) =>
      old === undefined ? recent : `Could not create '${path}': ${old[index]}`;
    for (const [path, index, recent] of [
      ['/dev/fdset/9', 0, 'Failed to find fdset /dev/fdset/9'],
      ['/dev/fdset/1', 1, 'Failed to find file descriptor with matching flags=0x41'],
      ['/dev/fdset/x', 2, 'Could not parse fdset /dev/fdset/x'],
    ] as const) {
      const error = text(path, index, recent);
      expect(await client.execute('migrate', { uri: `file:${path}` })).toBe(error);
      expect(await client.migrated()).toEqual({ status: 'failed', error });
    }
  });
});

it('saves the state of devices into a set, and no memory: as in QEMU, pmemsave has no sets', async () => {
  await using vm = await Greeted.start(['--compat', '10.0', ...small], (dir) => [opened(join(dir, 'file'), 'w')]);
  const { client, fds } = vm;
  await client.execute('add-fd', { 'fdset-id': 1 }, ...fds);
  expect(await client.execute('xen-save-devices-state', { filename: '/dev/fdset/1' })).toEqual({});
  expect(readFileSync(join(vm.vm.dir, 'file')).subarray(0, 4).toString('latin1')).toBe('QEVM');
  const missing = { filename: '/dev/fdset/2' };
  expect(await client.execute('xen-save-devices-state', missing)).toBe('Failed to find fdset /dev/fdset/2');
  await client.execute('stop');
  expect(await client.execute('xen-load-devices-state', missing)).toBe('Failed to find fdset /dev/fdset/2');
  expect(await client.execute('pmemsave', { val: 0, size: 4096, filename: '/dev/fdset/1' })).toBe(
    "Could not open '/dev/fdset/1': No such file or directory",
  );
  expect(vm.held('file')).toBe(1);
});
