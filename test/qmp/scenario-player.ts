/** Plays a scenario to VMs, and returns what came of each step. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type RecordedRelease, type Scenario, type VmSpec, vmSpecOf, withEvents } from './scenario.ts';
import { eventText, type Message, withoutCounts, write } from './scenario-normal.ts';

/** A VM that a scenario talks to. */
export interface PlayedVm {
  /** All events so far. */
  readonly events: readonly Message[];
  /** Sends one message. Resolves with its answer. @throws Error if it ends before */
  ask(text: string): Promise<Message>;
  /** Resolves when there are more events than `count`, or it has ended. */
  moreEvents(count: number): Promise<void>;
  /** Resolves with its exit code. */
  readonly ended: Promise<number | string>;
  kill(): Promise<void>;
}

/** Something that is not a VM, at the other end of a line. */
export interface Peer {
  close(): void;
}

/** Where a scenario is played. */
export interface Stage {
  /** Replaces {dir}. */
  readonly dir: string;
  readonly release: RecordedRelease;
  start(spec: VmSpec): Promise<PlayedVm>;
  /** Accepts lines, and reads what comes. */
  reads(uri: string): Promise<Peer>;
  sends(text: string, uri: string): Promise<Peer>;
  /** Lets something else happen. */
  pause(): Promise<void>;
}

interface Cast {
  vm: PlayedVm;
  /** How many events were waited for, or passed over. */
  seen: number;
}

class Play {
  readonly #stage: Stage;
  readonly #cast = new Map<string, Cast>();
  readonly #peers: Peer[] = [];

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  /** Returns the line that comes of a step. */
  async step(given: string): Promise<string | undefined> {
    const [, only, forOne = ''] = /^(7\.2|10\.0) (.*)$/.exec(given) ?? [];
    if (only !== undefined && only !== this.#stage.release) return undefined;
    const text = only === undefined ? given : forOne;
    if (text.startsWith('vm ')) return this.#start(text);
    if (text.startsWith('(')) return this.#act(text);
    if (text.startsWith('events ')) return this.#events(text.slice('events '.length));
    if (text === 'sockets real') return undefined;
    const [, name = '', verb, rest = ''] = /^(\w+) (->|on|off|set) (.*)$/.exec(text) ?? [];
    if (verb === '->') return `${name} <- ${this.#withoutNames(write(withoutCounts(await this.#ask(name, rest))))}`;
    if (verb === undefined) throw new Error(`unknown step: ${text}`);
    const command = verb === 'set' ? setting(JSON.parse(rest)) : switching(rest.split(', '), verb === 'on');
    const answer = await this.#ask(name, JSON.stringify(command));
    if ('error' in answer) throw new Error(`${text}: ${write(answer)}`);
    return undefined;
  }

  async end(): Promise<void> {
    for (const peer of this.#peers) peer.close();
    await Promise.all([...this.#cast.values()].map(({ vm }) => vm.kill()));
  }

  #of(name: string): Cast {
    const cast = this.#cast.get(name);
    if (cast === undefined) throw new Error(`there is no VM ${name}`);
    return cast;
  }

  async #start(text: string): Promise<undefined> {
    const spec = vmSpecOf(this.#withNames(text));
    const vm = await this.#stage.start(spec);
    this.#cast.set(spec.name, { vm, seen: 0 });
    if (spec.quiet !== true) await vm.ask(JSON.stringify(switching(['events'], true)));
  }

  async #ask(name: string, text: string): Promise<Message> {
    const answer = await this.#of(name).vm.ask(await this.#withPorts(this.#withNames(text)));
    const { timestamp: _, ...rest } = answer;
    return rest;
  }

  async #act(text: string): Promise<string | undefined> {
    const [, name = '', event] = /^\(wait for (\w+) (.*)\)$/.exec(text) ?? [];
    if (event !== undefined) return this.#wait(name, event);
    const [, asked = '', command = '', members] = /^\(until (\w+) (\S+) (.*)\)$/.exec(text) ?? [];
    if (members !== undefined) return this.#until(asked, command, JSON.parse(members));
    const [, ending] = /^\((\w+) ends\)$/.exec(text) ?? [];
    if (ending !== undefined) return `${ending} ended: ${await this.#of(ending).vm.ended}`;
    const [, killed] = /^\(kill (\w+)\)$/.exec(text) ?? [];
    const [, file, content = ''] = /^\(file (\S+) (.*)\)$/.exec(text) ?? [];
    if (file !== undefined) await this.#write(file, content);
    else if (killed !== undefined) await this.#of(killed).vm.kill();
    else await this.#peer(this.#withNames(text));
    return undefined;
  }

  async #write(name: string, content: string): Promise<void> {
    const path = join(this.#stage.dir, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `${content}\n`);
  }

  async #peer(text: string): Promise<void> {
    const [, reads] = /^\(peer reads (\S+)\)$/.exec(text) ?? [];
    const [, sent = '', to] = /^\(peer sends (.*) to (\S+:.+)\)$/.exec(text) ?? [];
    if (reads !== undefined) this.#peers.push(await this.#stage.reads(reads));
    else if (to !== undefined) this.#peers.push(await this.#stage.sends(sent, await this.#withPorts(to)));
    else if (text === '(peer closes)') for (const peer of this.#peers) peer.close();
    else throw new Error(`unknown step: ${text}`);
  }

  async #wait(name: string, event: string): Promise<undefined> {
    const cast = this.#of(name);
    let isOver = false;
    void cast.vm.ended.then(() => {
      isOver = true;
    });
    for (;;) {
      const found = cast.vm.events.findIndex((each, i) => i >= cast.seen && eventText(each) === event);
      if (found >= 0) {
        cast.seen = found + 1;
        return;
      }
      const count = cast.vm.events.length;
      if (isOver) throw new Error(`${name} ended before ${event}`);
      await cast.vm.moreEvents(count);
    }
  }

  async #until(name: string, command: string, members: Message): Promise<undefined> {
    for (;;) {
      const { return: value = {} } = await this.#ask(name, JSON.stringify({ execute: command }));
      const matches = ([member, wanted]: [string, unknown]) => write((value as Message)[member]) === write(wanted);
      if (Object.entries(members).every(matches)) return;
      await this.#stage.pause();
    }
  }

  #events(name: string): string {
    const events = this.#of(name)
      .vm.events.map(eventText)
      .filter((text) => text !== undefined);
    return `events of ${name}: ${events.length === 0 ? 'none' : events.join('; ')}`;
  }

  #withNames(text: string): string {
    return text.replaceAll('{dir}', this.#stage.dir);
  }

  async #withPorts(text: string): Promise<string> {
    const [there, name] = /\{port (\w+)\}/.exec(text) ?? [];
    if (there === undefined || name === undefined) return text;
    const { return: value } = await this.#ask(name, '{"execute": "query-migrate"}');
    const [address] = (value as { 'socket-address': { port: string }[] })['socket-address'];
    return text.replaceAll(there, address?.port ?? '');
  }

  #withoutNames(text: string): string {
    return text
      .replaceAll(this.#stage.dir, '{dir}')
      .replace(/"port": "\d{4,}"/g, '"port": "<port>"')
      .replace(/127\.0\.0\.1:\d{4,}/g, '127.0.0.1:<port>');
  }
}

const switching = (names: readonly string[], state: boolean) => ({
  execute: 'migrate-set-capabilities',
  arguments: { capabilities: names.map((capability) => ({ capability, state })) },
});

const setting = (parameters: object) => ({ execute: 'migrate-set-parameters', arguments: parameters });

/** A play takes at most this long, in ms. */
const guardMs = 8000;

/** Plays a scenario. Returns the lines that came, by step, of all steps and of the events at its end. */
export async function playScenario(scenario: Scenario, stage: Stage): Promise<(string | undefined)[]> {
  const play = new Play(stage);
  const lines: (string | undefined)[] = [];
  let now = '';
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${now}: nothing came`)), guardMs);
  });
  late.catch(() => {});
  try {
    for (const { text } of withEvents(scenario.steps)) {
      now = text;
      lines.push(await Promise.race([play.step(text), late]));
    }
    return lines;
  } catch (error) {
    const events = withEvents(scenario.steps).filter(({ text }) => text.startsWith('events '));
    const seen = await Promise.all(events.map(({ text }) => play.step(text).catch(() => '')));
    throw new Error([`${now}: ${(error as Error).message}`, ...lines.filter(Boolean), ...seen].join('\n'));
  } finally {
    clearTimeout(timer);
    await play.end();
  }
}
