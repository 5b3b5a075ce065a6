/** VMs of scenarios as processes: real QEMUs, and `vmferry vm`. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RecordedRelease, VmSpec } from '../qmp/scenario.ts';
import { type Message, messageOf } from '../qmp/scenario-normal.ts';
import type { Peer, PlayedVm, Stage } from '../qmp/scenario-player.ts';
import { peerThatReads, peerThatSends } from '../support/scenario-machines.ts';
import { VmProcess } from '../support/vm-process.ts';
import { Qemu } from './qemu.ts';

/** Who plays a VM. */
export type Player = 'QEMU' | 'vmferry';

/** A stage with processes. */
export class ProcessStage implements Stage {
  readonly #made: AsyncDisposable[] = [];
  /** QEMU's postcopy needs RAM in memory, or in a file in memory. */
  readonly #ramDir = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'scenario-ram-'));

  constructor(
    readonly dir: string,
    readonly release: RecordedRelease,
    readonly ram: Uint8Array,
    /** Who plays a VM, by its name. */
    readonly playerOf: (name: string) => Player,
  ) {}

  async start(spec: VmSpec): Promise<PlayedVm> {
    const image = join(this.#ramDir, `${spec.name}.ram`);
    writeFileSync(image, spec.incoming === undefined ? this.ram : '');
    const socket = join(this.dir, `${spec.name}.qmp`);
    const isQemu = this.playerOf(spec.name) === 'QEMU';
    const vm = await (isQemu ? this.#startQemu(spec, image, socket) : this.#startVmferry(spec, image, socket));
    this.#made.push(vm);
    return PlayedProcess.connect(vm.child, socket);
  }

  #startQemu(spec: VmSpec, image: string, socket: string): Promise<Qemu> {
    const { machine = 'none', memory = 16, incoming, paused, uuid, object = [], empty } = spec;
    const id = machine === 'pc' ? 'pc.ram' : 'ram';
    const backend = `memory-backend-file,id=${id},mem-path=${image},size=${memory}M,share=off`;
    truncateSync(image, memory << 20);
    const args = [
      ...(empty ? ['-M', machine] : ['-M', `${machine},memory-backend=${id}`, '-object', backend]),
      ...['-m', String(memory), '-nodefaults'],
      ...(incoming === undefined ? [] : ['-incoming', incoming]),
      ...(paused ? ['-S'] : []),
      ...(uuid === undefined ? [] : ['-uuid', uuid]),
      ...object.flatMap((each) => ['-object', each]),
      ...['-qmp', `unix:${socket},server=on,wait=off`],
    ];
    return Qemu.start({ version: this.release, args });
  }

  #startVmferry(spec: VmSpec, image: string, socket: string): Promise<VmProcess> {
    const { machine = 'none', memory = 16, incoming, paused, uuid, object = [], empty } = spec;
    return VmProcess.start(
      ...['--qmp', `unix:${socket}`, '--compat', this.release, '--machine', machine, '--memory', `${memory}M`],
      ...(incoming !== undefined ? ['--incoming', incoming] : empty ? [] : ['--ram', image]),
      ...(paused ? ['--paused'] : []),
      ...(uuid === undefined ? [] : ['--uuid', uuid]),
      ...object.flatMap((each) => ['--object', each]),
    );
  }

  reads = (uri: string): Promise<Peer> => peerThatReads(uri);
  sends = (text: string, uri: string): Promise<Peer> => peerThatSends(text, uri);
  pause = (): Promise<void> => sleep(10);

  async [Symbol.asyncDispose](): Promise<void> {
    for (const vm of this.#made) await vm[Symbol.asyncDispose]();
    rmSync(this.#ramDir, { recursive: true, force: true });
  }
}

class PlayedProcess implements PlayedVm {
  readonly events: Message[] = [];
  readonly ended: Promise<number | string>;
  readonly #child: ChildProcess;
  readonly #socket: Socket;
  readonly #answers: Message[] = [];
  readonly #watchers = new Set<() => void>();
  #text = '';
  #isClosed = false;

  private constructor(child: ChildProcess, socket: Socket) {
    this.#child = child;
    this.#socket = socket;
    this.ended = endOf(child);
    socket.setEncoding('latin1').on('data', (text: string) => this.#take(text));
    socket
      .on('error', () => {})
      .on('close', () => {
        this.#isClosed = true;
        this.#wake();
      });
    void this.ended.then(() => this.#wake());
  }

  static async connect(child: ChildProcess, path: string): Promise<PlayedProcess> {
    const socket = createConnection(path);
    await once(socket, 'connect');
    const vm = new PlayedProcess(child, socket);
    await vm.ask('{"execute": "qmp_capabilities"}');
    return vm;
  }

  #take(text: string): void {
    const lines = (this.#text + text).split('\r\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) {
      const message = messageOf(line);
      if ('event' in message) this.events.push(message);
      else if (!('QMP' in message)) this.#answers.push(message);
    }
    this.#wake();
  }

  #wake(): void {
    for (const look of [...this.#watchers]) look();
  }

  #until(isSo: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!isSo()) return;
        this.#watchers.delete(look);
        resolve();
      };
      this.#watchers.add(look);
      look();
    });
  }

  async ask(text: string): Promise<Message> {
    this.#answers.length = 0;
    this.#socket.write(`${text}\n`);
    await this.#until(() => this.#answers.length > 0 || this.#isClosed);
    const [answer] = this.#answers;
    if (answer === undefined) throw new Error(`not answered: ${text}`);
    return answer;
  }

  async moreEvents(count: number): Promise<void> {
    await this.#until(() => this.events.length > count || this.#isClosed);
    if (this.events.length <= count) await this.ended;
  }

  async kill(): Promise<void> {
    this.#socket.destroy();
    this.#child.kill('SIGKILL');
    await this.ended;
  }
}

async function endOf(child: ChildProcess): Promise<number | string> {
  if (child.exitCode !== null) return child.exitCode;
  const [code, signal] = await once(child, 'exit');
  return code ?? signal;
}
