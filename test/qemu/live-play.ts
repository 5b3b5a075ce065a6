/**
 * One live migration through a command that is harmed at some point, and what must hold afterwards, whatever happened:
 *
 *     source ── near proxy ── receive ── OUT
 *               FILE ── send ── far proxy ── target
 *     source ── near proxy ── relay ── far proxy ── target
 *                               └── OUT
 *
 * - OUT is absent, or whole. No other file is left, unless the command was killed: then its unfinished file may be, under a
 *   name that nobody takes for OUT, and no command takes it for whole.
 * - The source's guest runs on or can be resumed, unless someone else has it. What the command says of that is true.
 */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { runCli } from '../run-cli.ts';
import type { Capture } from './capture.ts';
import { expectCounting } from './expect-counting.ts';
import { equalFiles, partOptions } from './expect-read.ts';
import type { Guest, PageRange } from './guest.ts';
import { LiveCommand, type LiveEnd } from './live-command.ts';
import { endOf, errorLine, hasCompleted, isGone, isRunning, settledStatus, targetEnd, untold } from './live-end.ts';
import { fillStripes, type Machine, pagesOfOurs, type Running, startDestination, startMachine } from './machine.ts';
import { HarmingProxy, type Harms } from './proxy.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { type Addresses, differences, findAddresses, readTruth, type Truth } from './truth.ts';

export interface Mode {
  /** Of both sides. */
  capabilities: string[];
  /** Of the source alone. */
  sourceCapabilities?: string[];
  parameters?: Record<string, unknown>;
  postcopy?: boolean;
  /** The source learns whether the guest has arrived. */
  confirms?: boolean;
  /** For `send`: */
  channels?: { count: number; compression: 'none' | 'zlib' | 'zstd' };
}

export type Verb = 'receive' | 'send' | 'relay';

export interface PlaySetup {
  verb: Verb;
  version: QemuVersion;
  mode: Mode;
  /** What `send` sends. */
  made?: Capture | undefined;
  near?: ((connection: number) => Harms) | undefined;
  far?: ((connection: number) => Harms) | undefined;
  args?: readonly string[];
  transport?: 'tcp' | 'unix';
  /** Whether the guest writes meanwhile. Default true. */
  writes?: boolean;
  /** Pages that it rewrites all the time, so that another pass is always needed. */
  ballast?: PageRange;
  machine?: Partial<Machine>;
  /** What the target has instead. */
  targetMachine?: Partial<Machine>;
  /** The pages that have content. Default: all of ours. */
  filled?: PageRange;
  /** The guest is stopped before the migration begins, or only to learn its RAM at that moment. */
  stands?: 'still' | 'for a moment';
  /** Credentials by endpoint. */
  tls?: ((endpoint: 'client' | 'server') => { 'qom-type': string; dir: string }) | undefined;
  /** Called before anything starts. */
  onStart?: (play: Play) => void;
}

/** How it ended. A missing side, and one that was killed, has no status. */
interface Outcome {
  end: LiveEnd;
  source: { status: string; runs: boolean } | undefined;
  target: string | undefined;
}

/** The pages that the guest writes meanwhile. */
const written = { first: 256, count: 16 };

export class Play {
  readonly out: string;
  readonly #temporary: string;
  /** Addresses of the blocks of the source. */
  #addresses: Addresses | undefined;
  /** RAM of a source that stood still. */
  #truth: Truth | undefined;
  near: HarmingProxy | undefined;
  far: HarmingProxy | undefined;
  command!: LiveCommand;
  source: Qemu | undefined;
  guest: Guest | undefined;
  target: Qemu | undefined;
  /** Events of the source before the migration. */
  eventsBefore = 0;

  private constructor(readonly setup: PlaySetup) {
    const dir = Qemu.makeDir();
    this.out = join(dir, 'out', 'guest.mapped-ram');
    this.#temporary = join(dir, 'tmp');
    for (const each of [join(dir, 'out'), this.#temporary]) mkdirSync(each);
  }

  /** Starts both sides and the command. `send` begins at once. */
  static async start(setup: PlaySetup): Promise<Play> {
    const play = new Play(setup);
    setup.onStart?.(play);
    try {
      await play.#start();
      return play;
    } catch (error) {
      await play[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #start(): Promise<void> {
    const { verb, near, far, transport = 'tcp', args = [] } = this.setup;
    const { machine } = this;
    if (verb !== 'send') await this.#startSource(machine);
    if (verb !== 'receive')
      this.far = await HarmingProxy.open(await this.#startTarget({ ...machine, ...this.setup.targetMachine }), far);
    const listen = transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${join(this.#temporary, '..', 'listening')}`;
    const words = {
      receive: () => ['receive', listen, this.out],
      send: () => this.#sendWords(),
      relay: () => ['relay', listen, this.far?.uri ?? '', '--tee', this.out],
    };
    const common = ['--json', '--idle-timeout', '5s', ...this.#tlsWords(), ...args];
    this.command = new LiveCommand([...words[verb](), ...common], {
      env: { TMPDIR: this.#temporary },
    });
    if (verb !== 'send') this.near = await HarmingProxy.open(await this.command.uri(), near);
  }

  get machine(): Machine {
    return { version: this.setup.version, machine: 'bare', ...this.setup.machine };
  }

  #tlsWords(): string[] {
    const { tls, verb } = this.setup;
    if (tls === undefined) return [];
    const object = (endpoint: 'client' | 'server') => {
      const { 'qom-type': type, dir } = tls(endpoint);
      return ['--object', `${type},id=${endpoint},endpoint=${endpoint},dir=${dir}`];
    };
    const server = [...object('server'), verb === 'relay' ? '--listen-tls-creds' : '--tls-creds', 'server'];
    const client = [...object('client'), verb === 'relay' ? '--target-tls-creds' : '--tls-creds', 'client'];
    return [...(verb === 'send' ? [] : server), ...(verb === 'receive' ? [] : client)];
  }

  async #useTls(qemu: Qemu, endpoint: 'client' | 'server'): Promise<void> {
    const { tls } = this.setup;
    if (tls === undefined) return;
    await qemu.execute('object-add', { ...tls(endpoint), id: 'tls0', endpoint });
    await qemu.setParameters({ 'tls-creds': 'tls0' });
  }

  #sendWords(): string[] {
    const { made, mode } = this.setup;
    if (made === undefined) throw new Error('nothing to send');
    const { count = 0, compression = 'none' } = mode.channels ?? {};
    const channels = ['--multifd-channels', String(count), '--multifd-compression', compression];
    return ['send', made.file, this.far?.uri ?? '', ...partOptions(made), ...(count === 0 ? [] : channels)];
  }

  async #startSource(machine: Machine): Promise<void> {
    const { mode, writes = true, ballast, stands } = this.setup;
    const running: Running = await startMachine(machine);
    this.source = running.qemu;
    this.guest = running.guest;
    await fillStripes(running, this.setup.filled ?? pagesOfOurs(machine));
    if (machine.version === '10.0' || stands !== undefined) this.#addresses = await findAddresses(running.qemu);
    await this.#useTls(running.qemu, 'client');
    await running.qemu.setCapabilities([...mode.capabilities, ...(mode.sourceCapabilities ?? [])]);
    await running.qemu.setParameters(mode.parameters ?? {});
    if (stands !== undefined) await this.#stand(running.qemu);
    if (ballast !== undefined) await running.guest?.ballast(ballast);
    if (writes && stands === undefined) await running.guest?.startDirtying(written, 'mixed', 200);
  }

  async #stand(qemu: Qemu): Promise<void> {
    await qemu.execute('stop');
    const before = join(this.#temporary, '..', 'before');
    mkdirSync(before);
    this.#truth = await readTruth(qemu, before, this.#addresses as Addresses);
    if (this.setup.stands === 'for a moment') await qemu.execute('cont');
  }

  /** Returns the URI at which it waits. */
  async #startTarget(machine: Machine): Promise<string> {
    const { verb, mode, transport = 'tcp' } = this.setup;
    this.target = await startDestination(machine);
    await this.#useTls(this.target, 'server');
    const own = ['return-path', 'events'];
    const names = verb === 'send' ? [] : mode.capabilities.filter((name) => !own.includes(name));
    await this.target.setCapabilities([...names, ...(mode.channels === undefined ? [] : ['multifd']), 'events']);
    const { channels } = mode;
    await this.target.setParameters({
      ...(verb === 'send' ? {} : mode.parameters),
      ...(channels && { 'multifd-channels': channels.count, 'multifd-compression': channels.compression }),
    });
    const uri = transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${join(this.target.dir, 'incoming')}`;
    await this.target.execute('migrate-incoming', { uri });
    if (transport === 'unix') return uri;
    const { 'socket-address': addresses } = await this.target.queryMigrate();
    return `tcp:127.0.0.1:${(addresses as { port: string }[])[0]?.port}`;
  }

  /** Lets the source migrate. */
  async begin(): Promise<void> {
    const { source, near, setup } = this;
    if (source === undefined || near === undefined) return;
    this.eventsBefore = source.events.length;
    // A source that is killed at once does not answer.
    const ask = (command: string, args: object = {}) =>
      source.execute(command, args).catch((error) => {
        if (!isGone(source)) throw error;
      });
    await ask('migrate', { uri: near.uri });
    if (setup.mode.postcopy === true) await ask('migrate-start-postcopy').catch(() => {});
  }

  /** Waits until all have ended. */
  async outcome(): Promise<Outcome> {
    const { command, source, near, target } = this;
    const end = await (source === undefined || near === undefined ? command.ended : endOf(command, source, near));
    const status =
      source === undefined || isGone(source)
        ? undefined
        : await settledStatus(source, this.setup.mode.postcopy === true);
    const runs = source !== undefined && status !== undefined && status !== 'hung' && (await isRunning(source));
    return {
      end,
      source: status === undefined ? undefined : { status, runs },
      target: target === undefined || target.child.signalCode !== null ? undefined : await targetEnd(target),
    };
  }

  /** Requires what must always hold. `codes` are those that the command may end with; null if it was killed. */
  async expectTruth(outcome: Outcome, codes: readonly (number | null)[], what: string): Promise<void> {
    const { end, source, target } = outcome;
    const about = `${what}: source ${JSON.stringify(source)}, target ${target}; ${end.code} ${end.stderr}`;
    expect(codes, about).toContain(end.code);
    const error = end.code === null || end.code === 0 ? undefined : errorLine(end.stderr);
    await this.#expectFiles(end.code === null, error?.guest, about);
    await this.#expectWhole(outcome, about);
    await this.#expectSource(outcome, about);
    if (error !== undefined) this.#expectWord(error.guest, outcome, about);
    if (end.code !== 0) return;
    if (source !== undefined && source.status !== 'completed') {
      expect([this.setup.verb, JSON.parse(end.stdout)], about).toMatchObject(['receive', untold]);
    }
    if (this.setup.verb !== 'receive') expect(this.#targetHas(outcome), about).toBe(true);
    if (this.setup.verb !== 'send') expect(existsSync(this.out), about).toBe(true);
  }

  async #expectFiles(isKilled: boolean, word: string | undefined, about: string): Promise<void> {
    expect(readdirSync(this.#temporary), about).toEqual([]);
    const directory = join(this.out, '..');
    const left = readdirSync(directory).filter((name) => name !== 'guest.mapped-ram');
    const isKept = this.setup.verb === 'receive' && word === 'split';
    if (!isKilled) expect(left, about).toEqual(isKept ? ['guest.mapped-ram.partial'] : []);
    for (const name of left) {
      if (isKilled) expect(name, about).toMatch(/^(\.vmferry-\d+-[0-9a-f]{8}|guest\.mapped-ram\.partial)$/);
      expect((await runCli(['verify', join(directory, name)])).code, about).toBe(1);
    }
    if (!existsSync(this.out)) return;
    const { code, stdout } = await runCli(['verify', this.out]);
    expect(code, `${about}\n${stdout}`).toBe(0);
  }

  /** Requires that RAM is the same wherever the guest is whole. */
  async #expectWhole({ source, target }: Outcome, about: string): Promise<void> {
    const { made } = this.setup;
    const isStopped = this.source !== undefined && source?.status === 'completed' && !source.runs;
    let truth: Truth | undefined = made?.truth ?? this.#truth;
    if (this.#truth === undefined && this.source !== undefined && isStopped && this.#addresses !== undefined) {
      truth = await readTruth(this.source, this.source.dir, this.#addresses);
    }
    if (truth === undefined) return;
    if (this.target !== undefined && target === 'completed') {
      const there = join(this.target.dir, 'there');
      mkdirSync(there);
      expect(differences(await readTruth(this.target, there, await findAddresses(this.target)), truth), about).toEqual(
        [],
      );
    }
    if (!existsSync(this.out)) return;
    const { stdout } = await runCli(['extract', this.out, '--all', join(this.#temporary, '..', 'kept'), '--json']);
    for (const { idstr, path } of JSON.parse(stdout).blocks as { idstr: string; path: string }[]) {
      expect(await equalFiles(path, truth.get(idstr)?.path ?? ''), `${about}; ${idstr}`).toBe(true);
    }
  }

  /** Requires that the source has its guest if nobody else has. */
  async #expectSource(outcome: Outcome, about: string): Promise<void> {
    const { source } = outcome;
    if (source === undefined || source.status === 'hung') return;
    const { mode, verb } = this.setup;
    const isSplit = ['postcopy-paused', 'postcopy-active', 'device, failed'].includes(source.status);
    if (isSplit) expect(mode.postcopy, about).toBe(true);
    else expect(['failed', 'cancelled', 'completed'], about).toContain(source.status);
    if (source.status === 'failed' || source.status === 'cancelled') {
      // 7.2 does not let its guest run on if postcopy fails as it begins: `cont` does.
      if (mode.postcopy === true && this.setup.version === '7.2' && !source.runs) return;
      expect(source.runs, about).toBe(true);
      if (this.setup.writes !== false) await expectCounting(this.guest as Guest, 0);
    }
    if (source.status !== 'completed' || mode.confirms !== true) return;
    // It was told that all is well.
    if (verb === 'receive') expect(existsSync(this.out), about).toBe(true);
    else expect(this.#targetHas(outcome), about).toBe(true);
  }

  #targetHas({ target }: Outcome): boolean {
    return target === 'completed' || (this.target !== undefined && hasCompleted(this.target));
  }

  #expectWord(word: string, outcome: Outcome, about: string): void {
    const { source } = outcome;
    const isThere = this.#targetHas(outcome);
    if (source?.status === 'hung') return;
    if (word === 'source') {
      expect(isThere, about).toBe(false);
      if (this.setup.verb === 'receive') expect(existsSync(this.out), about).toBe(false);
      // A relay knows that nothing was passed on. The source need not know, and may wait to be resumed.
      const { confirms, postcopy } = this.setup.mode;
      const isUnaware = this.setup.verb === 'relay' && (confirms !== true || postcopy === true);
      if (source !== undefined && !isUnaware) {
        expect(['failed', 'cancelled'], about).toContain(source.status);
        expect(source.runs, about).toBe(true);
      }
    } else if (word === 'target') {
      if (this.target !== undefined) expect(isThere, about).toBe(true);
      if (source !== undefined) expect(source.runs, about).toBe(false);
    } else if (word === 'split') {
      expect(this.setup.mode.postcopy, about).toBe(true);
    } else expect(word, about).toBe('either');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.guest?.close();
    await this.near?.[Symbol.asyncDispose]();
    await this.far?.[Symbol.asyncDispose]();
    await this.command?.[Symbol.asyncDispose]();
    await this.source?.[Symbol.asyncDispose]();
    await this.target?.[Symbol.asyncDispose]();
  }
}
