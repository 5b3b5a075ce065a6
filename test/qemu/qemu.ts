/**
 * Starts a real QEMU, drives it over QMP and ensures that it ends.
 *
 * Each QEMU has a private directory with its sockets and traces. It is ended by its own pid when it is disposed of,
 * when the test process exits, and (through setpriv, if available) when the test process is killed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hangGuardMs } from '../limits.ts';
import { Qmp, type QmpEvent } from './qmp.ts';

export type QemuVersion = '7.2' | '10.0';
export const qemuVersions: readonly QemuVersion[] = ['7.2', '10.0'];

/** Targets besides x86_64. */
export type QemuTarget = 'x86_64' | 'aarch64' | 'ppc64' | 's390x' | 'sparc64' | 'riscv64';

/** Path of the wrapper that install.sh made for that version and target, if it exists. */
export function findQemu(version: QemuVersion, target: QemuTarget = 'x86_64'): string | undefined {
  const name = target === 'x86_64' ? 'run' : `run-${target}`;
  const run = join(process.env.VMFERRY_QEMU_DIR || join(homedir(), '.cache/vmferry-qemu'), version, name);
  return existsSync(run) ? run : undefined;
}

/** The members of query-migrate that tests look at. */
export type MigrationInfo = {
  status?: string;
  'error-desc'?: string;
  ram?: Record<string, number>;
  'xbzrle-cache'?: Record<string, number>;
  compression?: Record<string, number>;
  [member: string]: unknown;
};

export type MigrateOptions = {
  /** Enabled before the migration starts. */
  capabilities?: readonly string[];
  parameters?: Record<string, unknown>;
  /** Called with each answer of query-migrate while the migration runs. */
  onIteration?: (info: MigrationInfo) => void | Promise<void>;
  /** Fails the wait after this many ms. */
  timeout?: number;
};

const running = new Set<ChildProcess>();
const dirs = new Set<string>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const dir of dirs) rmSync(dir, { recursive: true, force: true });
});

const setpriv = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path));

/** Arguments with which a QEMU can be driven from its directory. */
export const monitorArgs = (dir: string): string[] => [
  ...['-display', 'none', '-qmp', `unix:${join(dir, 'qmp')},server=on,wait=off`, '-D', join(dir, 'trace')],
];

export class Qemu {
  /** Private directory; removed when the QEMU is disposed of. */
  readonly dir: string;
  #stderr = '';
  #exit: string | undefined;
  #gone: Promise<void>;
  #qmp!: Qmp;

  private constructor(
    readonly version: QemuVersion,
    readonly args: readonly string[],
    readonly child: ChildProcess,
    dir: string,
  ) {
    this.dir = dir;
    child.stderr!.setEncoding('utf8');
    child.stderr!.on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-65536);
    });
    this.#gone = new Promise((resolve) => {
      const end = (how: string) => {
        running.delete(child);
        this.#exit ??= how;
        resolve();
      };
      child.once('error', (error) => end(error.message));
      const how = (code: number | null, signal: string | null) =>
        signal ? `killed by ${signal}` : `exit status ${code}`;
      child.once('close', (code, signal) => end(how(code, signal)));
      // A child of QEMU (exec:) may keep stderr open, so `close` may never come: 300 ms are for the last words on
      // stderr.
      child.once('exit', (code, signal) => setTimeout(() => end(how(code, signal)), 300).unref());
    });
  }

  /** A new private directory, for {@link Qemu.start} when it needs files first. Removed when the process exits. */
  static makeDir(): string {
    const dir = mkdtempSync(join(tmpdir(), 'vmferry-'));
    dirs.add(dir);
    return dir;
  }

  /**
   * Starts `version` with `args` (display and QMP are added) and waits until it answers.
   * @throws if that QEMU is not installed or exits at once; the message includes its stderr output
   */
  static async start(options: {
    version: QemuVersion;
    target?: QemuTarget | undefined;
    args: readonly string[];
    dir?: string;
    timeout?: number;
  }): Promise<Qemu> {
    const dir = options.dir ?? Qemu.makeDir();
    const run = findQemu(options.version, options.target);
    if (!run) {
      rmSync(dir, { recursive: true, force: true });
      throw new Error(`QEMU ${options.version} is not installed; run test/qemu/install.sh`);
    }
    const args = [...options.args, ...monitorArgs(dir)];
    const command = setpriv ? [setpriv, '--pdeathsig', 'KILL', run, ...args] : [run, ...args];
    const child = spawn(command[0]!, command.slice(1), { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] });
    running.add(child);
    const qemu = new Qemu(options.version, args, child, dir);
    try {
      qemu.#qmp = await Qmp.connect(join(dir, 'qmp'), options.timeout ?? hangGuardMs, () => {
        if (qemu.#exit) throw new Error(qemu.#exit);
      });
    } catch (error) {
      await qemu.kill();
      const message = qemu.#explain(error as Error).message;
      rmSync(dir, { recursive: true, force: true });
      throw new Error(message);
    }
    return qemu;
  }

  /**
   * Adopts a QEMU that `child`, or a process that it started, runs in `dir`, and that listens there as one of {@link start}
   * does (see {@link monitorArgs}). To end it is to end `child`.
   */
  static async adopt(
    child: ChildProcess,
    { version, args, dir }: { version: QemuVersion; args: readonly string[]; dir: string },
  ): Promise<Qemu> {
    running.add(child);
    const qemu = new Qemu(version, args, child, dir);
    qemu.#qmp = await Qmp.connect(join(dir, 'qmp'), hangGuardMs, () => {
      if (qemu.#exit) throw qemu.#explain(new Error(qemu.#exit));
    });
    return qemu;
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** QEMU's stderr output so far. */
  get stderr(): string {
    return this.#stderr;
  }

  get events(): readonly QmpEvent[] {
    return this.#qmp.events;
  }

  async execute<T = unknown>(command: string, args: object = {}, timeout?: number): Promise<T> {
    try {
      return await this.#qmp.execute<T>(command, args, timeout);
    } catch (error) {
      throw await this.#explainLater(error as Error);
    }
  }

  /** Runs a line of the human monitor and returns what it printed. */
  async hmp(line: string): Promise<string> {
    return this.execute<string>('human-monitor-command', { 'command-line': line });
  }

  /** The first event of that name from index `from` on whose data `where` accepts. */
  async event(
    name: string,
    options: { timeout?: number; from?: number; where?: (data: Record<string, unknown>) => boolean } = {},
  ): Promise<QmpEvent> {
    const { timeout = hangGuardMs, from = 0, where = () => true } = options;
    try {
      return await this.#qmp.event((e) => e.event === name && where(e.data ?? {}), timeout, from);
    } catch (error) {
      throw await this.#explainLater(new Error(`waiting for ${name}: ${(error as Error).message}`));
    }
  }

  async setCapabilities(on: readonly string[]): Promise<void> {
    if (on.length === 0) return;
    await this.execute('migrate-set-capabilities', {
      capabilities: on.map((capability) => ({ capability, state: true })),
    });
  }

  async clearCapabilities(off: readonly string[]): Promise<void> {
    if (off.length === 0) return;
    await this.execute('migrate-set-capabilities', {
      capabilities: off.map((capability) => ({ capability, state: false })),
    });
  }

  async setParameters(parameters: Record<string, unknown>): Promise<void> {
    if (Object.keys(parameters).length > 0) await this.execute('migrate-set-parameters', parameters);
  }

  async queryMigrate(): Promise<MigrationInfo> {
    return this.execute<MigrationInfo>('query-migrate');
  }

  /** Migrates to `uri` and waits for completion. @throws with QEMU's own reason when it fails */
  async migrate(uri: string, options: MigrateOptions = {}): Promise<MigrationInfo> {
    await this.setCapabilities(options.capabilities ?? []);
    await this.setParameters(options.parameters ?? {});
    await this.execute('migrate', { uri });
    return this.waitForMigration(options);
  }

  /** Waits until the current migration (outgoing or incoming) is completed. */
  async waitForMigration(options: Pick<MigrateOptions, 'onIteration' | 'timeout'> = {}): Promise<MigrationInfo> {
    return this.waitForStatus('completed', options);
  }

  /** Waits until query-migrate reports `status`. @throws with QEMU's own reason when the migration ends otherwise */
  async waitForStatus(
    status: string,
    options: Pick<MigrateOptions, 'onIteration' | 'timeout'> = {},
  ): Promise<MigrationInfo> {
    const { timeout = hangGuardMs, onIteration } = options;
    const until = performance.now() + timeout;
    for (;;) {
      const info = await this.queryMigrate();
      if (info.status === status) return info;
      if (['completed', 'failed', 'cancelled'].includes(info.status ?? '')) {
        throw this.#explain(new Error(`migration ${info.status}: ${info['error-desc'] ?? 'no reason given'}`));
      }
      if (performance.now() > until) {
        throw this.#explain(new Error(`migration still ${info.status} after ${timeout} ms: ${JSON.stringify(info)}`));
      }
      if (onIteration && info.ram) await onIteration(info);
      await sleep(10);
    }
  }

  /** Leaves its monitor. It runs on, without a client. */
  disconnect(): void {
    this.#qmp.close();
  }

  /** Asks QEMU to quit, and kills it if it does not within 5 s. */
  async quit(): Promise<void> {
    if (!this.#exit) {
      await this.#qmp.execute('quit', {}, 5000).catch(() => {});
      await Promise.race([this.#gone, sleep(5000, undefined, { ref: false })]);
    }
    await this.kill();
  }

  /** Kills this QEMU at once. */
  async kill(): Promise<void> {
    this.#qmp?.close();
    if (!this.#exit) this.child.kill('SIGKILL');
    await this.#gone;
  }

  /** Ends QEMU and removes its directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** The connection often fails just before the exit status and the last output arrive. */
  async #explainLater(error: Error): Promise<Error> {
    if (!('desc' in error)) await Promise.race([this.#gone, sleep(500, undefined, { ref: false })]);
    return this.#explain(error);
  }

  #explain(error: Error): Error {
    const said = this.#stderr.trim();
    if ('desc' in error || (!said && !this.#exit)) return error;
    const exit = this.#exit && this.#exit !== error.message ? ` (${this.#exit})` : '';
    return new Error(`QEMU ${this.version}: ${error.message}${exit}${said ? `\n${said}` : ''}`, { cause: error });
  }
}
