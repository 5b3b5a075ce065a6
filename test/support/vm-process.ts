/** `vmferry vm` as a process of the tests, and a client of its monitor. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connectTo } from '../../src/io/node/connect.ts';
import { QmpClient } from '../../src/qmp/client.ts';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

type Json = Record<string, unknown>;

/** A VM, with its events in order. */
export class VmProcess {
  /** Private directory; removed at the end. */
  readonly dir = mkdtempSync(join(tmpdir(), 'vm-'));
  /** The first monitor. */
  readonly socket: string;
  readonly child: ChildProcess;
  readonly events: string[] = [];
  readonly ended: Promise<number | string | null>;
  stderr = '';
  #client: QmpClient | undefined;
  #onMessage: (event: string, data: Json) => void = () => {};
  /** Called with each event. */
  readonly #watchers = new Set<() => void>();

  private constructor(args: readonly string[], socket?: string) {
    this.socket = socket ?? join(this.dir, 'qmp');
    const monitors = ['--qmp', `unix:${this.socket}`, '--qmp', `unix:${this.second}`];
    this.child = spawn(process.execPath, [cli, 'vm', ...monitors, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      for (const look of this.#watchers) look();
    });
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) => {
        resolve(code ?? signal);
        for (const look of this.#watchers) look();
      });
    });
  }

  /** A second monitor. */
  get second(): string {
    return join(this.dir, 'second');
  }

  /** Ends the client of the first monitor, so that another one can have it. */
  leave(): void {
    void this.#client?.close();
  }

  /** Starts a VM whose first monitor no client has. */
  static async startAlone(...args: string[]): Promise<VmProcess> {
    const vm = new VmProcess(args);
    await vm.#waitForSecond();
    return vm;
  }

  /** The second monitor listens after the first one. */
  async #waitForSecond(): Promise<void> {
    while (!existsSync(this.second)) {
      if (this.child.exitCode !== null) throw new Error(`vmferry vm ended with ${this.child.exitCode}: ${this.stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Starts a VM, and greets it. @throws Error if it ends before it is ready */
  static start(...args: string[]): Promise<VmProcess> {
    return VmProcess.#greeted(new VmProcess(args));
  }

  /** Starts a small VM whose first monitor is at the given path, which may be taken. @throws Error if it is */
  static startAt(path: string): Promise<VmProcess> {
    return VmProcess.#greeted(new VmProcess(['--memory', '1M'], path));
  }

  static async #greeted(vm: VmProcess): Promise<VmProcess> {
    for (;;) {
      await vm.#waitForSecond();
      const line = await connectTo({ transport: 'socket', type: 'unix', path: vm.socket }).catch(() => undefined);
      if (line !== undefined) {
        const client = await QmpClient.connect(line);
        vm.#client = client;
        client.subscribe(({ event, data }) => {
          const { status, pass } = (data ?? {}) as Json;
          vm.#onMessage(event, (data ?? {}) as Json);
          vm.events.push([event, status ?? pass].filter((part) => part !== undefined).join(' '));
          for (const look of vm.#watchers) look();
        });
        return vm;
      }
      if (vm.child.exitCode !== null) throw new Error(`vmferry vm ended with ${vm.child.exitCode}: ${vm.stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Runs a command. @throws Error with the server's text */
  execute(command: string, given: Json = {}): Promise<Json> {
    return (this.#client as QmpClient).execute(command as 'query-migrate', given as never) as Promise<Json>;
  }

  async switchOn(...capabilities: string[]): Promise<void> {
    await this.execute('migrate-set-capabilities', {
      capabilities: capabilities.map((capability) => ({ capability, state: true })),
    });
  }

  /** Waits for an event, such as `MIGRATION completed`, of which there were not `count` before. */
  event(name: string, count = 1): Promise<void> {
    return this.#until(name, () => this.events.filter((each) => each === name).length >= count);
  }

  /** Sees each event from now on, with its data. */
  onMessage(see: (event: string, data: Json) => void): void {
    this.#onMessage = see;
  }

  /** Waits until it has printed a text on standard error. */
  said(text: string): Promise<void> {
    return this.#until(text, () => this.stderr.includes(text));
  }

  #until(name: string, holds: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const isThere = holds();
        const isGone = this.child.exitCode !== null;
        if (!isThere && !isGone) return;
        this.#watchers.delete(look);
        if (isThere) resolve();
        else reject(new Error(`vmferry vm ended before ${name}: ${this.events.join(', ')}\n${this.stderr}`));
      };
      this.#watchers.add(look);
      look();
    });
  }

  /** Where it listens, as a URI. */
  async incomingUri(): Promise<string> {
    const { 'socket-address': addresses } = await this.execute('query-migrate');
    const [address] = addresses as Json[];
    return address?.type === 'unix'
      ? `unix:${String(address.path)}`
      : `tcp:${String(address?.host)}:${String(address?.port)}`;
  }

  /** The first bytes of its guest-physical memory. */
  async saveMemory(size: number): Promise<string> {
    const filename = join(this.dir, `memory-${Math.random()}`);
    await this.execute('pmemsave', { val: 0, size, filename });
    return filename;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.close();
    this.child.kill('SIGKILL');
    await this.ended;
    rmSync(this.dir, { recursive: true, force: true });
  }
}
