/** What clients send when they connect: libvirt's probe of capabilities, what it sends around a save, and qemu.qmp's opening. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { expect, it } from 'vitest';
import { VmProcess } from '../../support/vm-process.ts';

type Json = Record<string, unknown>;

/** A client that writes what it likes, and reads lines. */
class RawClient {
  readonly #socket: Socket;
  #text = '';

  constructor(path: string) {
    this.#socket = connect({ path });
    this.#socket.setEncoding('utf8').on('data', (more: string) => {
      this.#text += more;
    });
  }

  async next(): Promise<Json> {
    for (;;) {
      const end = this.#text.indexOf('\r\n');
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 2);
        return JSON.parse(line);
      }
      await once(this.#socket, 'data');
    }
  }

  async ask(message: Json): Promise<Json> {
    this.#socket.write(`${JSON.stringify(message)}\r\n`);
    return this.next();
  }

  leave(): void {
    this.#socket.destroy();
  }
}

const probing: [string, Json?][] = [
  ['query-version'],
  ['query-target'],
  ['query-qmp-schema'],
  ['query-commands'],
  ['query-kvm'],
  ['qom-list-types'],
  ['device-list-properties', { typename: 'virtio-blk-pci' }],
  ['qom-list-properties', { typename: 'memory-backend-file' }],
  ['query-machines'],
  ['query-command-line-options'],
  ['query-migrate-capabilities'],
];
/** Answered with errors, which libvirt takes for `not there`. */
const refused: [string, Json?][] = [
  ['query-cpu-definitions'],
  ['query-tpm-models'],
  ['query-tpm-types'],
  ['query-sev-capabilities'],
  ['query-sgx-capabilities'],
  ['query-cpu-model-expansion', { type: 'static', model: { name: 'host' } }],
];

it("answers libvirt's probe of capabilities", async () => {
  await using vm = await VmProcess.startAlone('--memory', '1M', '--paused');
  const libvirt = new RawClient(vm.socket);
  expect(await libvirt.next()).toMatchObject({ QMP: { capabilities: ['oob'] } });
  expect(await libvirt.ask({ execute: 'qmp_capabilities', id: 'libvirt-1' })).toEqual({ return: {}, id: 'libvirt-1' });
  const answers: Record<string, unknown> = {};
  let number = 2;
  for (const [command, given] of probing) {
    const id = `libvirt-${number++}`;
    const answer = await libvirt.ask({ execute: command, ...(given && { arguments: given }), id });
    expect(answer).toMatchObject({ id, return: expect.anything() });
    answers[command] = answer.return;
  }
  for (const [command, given] of refused) {
    const id = `libvirt-${number++}`;
    const answer = await libvirt.ask({ execute: command, ...(given && { arguments: given }), id });
    expect(answer).toMatchObject({ id, error: { class: 'CommandNotFound' } });
  }
  expect(answers).toMatchObject({
    'query-target': { arch: 'x86_64' },
    'query-kvm': { enabled: false, present: false },
    'qom-list-types': [{ name: 'tcg-accel' }],
    'query-machines': [
      { name: 'none', 'cpu-max': 1, 'hotpluggable-cpus': false, 'numa-mem-supported': false, deprecated: false },
    ],
  });
  expect(await libvirt.ask({ execute: 'quit', id: 'libvirt-99' })).toMatchObject({ event: 'SHUTDOWN' });
  expect(await vm.ended).toBe(0);
});

it('answers what libvirt sends before it saves, up to the descriptor that this process cannot be given', async () => {
  await using vm = await VmProcess.start('--memory', '1M');
  expect(await vm.execute('query-migrate')).toEqual({});
  await vm.execute('stop');
  const names = ['xbzrle', 'auto-converge', 'rdma-pin-all', 'postcopy-ram', 'compress', 'pause-before-switchover'];
  const others = ['late-block-activate', 'multifd', 'dirty-bitmaps', 'return-path'];
  const capabilities = [...names, ...others].map((capability) => ({ capability, state: false }));
  await vm.execute('migrate-set-capabilities', { capabilities });
  await vm.execute('migrate-set-parameters', { 'max-bandwidth': 9223372036853727232n });
  expect(await vm.execute('query-migrate-parameters')).toMatchObject({ 'max-bandwidth': 9223372036853727232n });
  await expect(vm.execute('getfd', { fdname: 'migrate' })).rejects.toThrow(
    'No file descriptor supplied via SCM_RIGHTS',
  );
});

it("answers qemu.qmp's opening, whose next message must be the reply", async () => {
  await using vm = await VmProcess.startAlone('--memory', '1M');
  const python = new RawClient(vm.socket);
  expect(await python.next()).toMatchObject({ QMP: { version: { qemu: { major: 9 } }, capabilities: ['oob'] } });
  const hello = { execute: 'qmp_capabilities', arguments: { enable: ['oob'] } };
  expect(await python.ask(hello)).toEqual({ return: {} });
  expect(await python.ask({ execute: 'query-status', id: '__qmp#00000' })).toEqual({
    ...{ id: '__qmp#00000', return: { status: 'running', running: true } },
  });
  expect(await python.ask({ 'exec-oob': 'query-yank', id: '__qmp#00001' })).toMatchObject({ id: '__qmp#00001' });
  const refused = await python.ask({ execute: 'no-such', id: '__qmp#00002' });
  expect(refused).toMatchObject({ id: '__qmp#00002', error: { class: 'CommandNotFound' } });
  python.leave();
});
