/**
 * Which releases would refuse which of a client's requests: the requests are played to a server of each release that checks
 * commands, arguments, capabilities and parameters, and does nothing.
 *
 * What depends on the state of a VM, such as whether a migration is running, is not judged. Neither are commands that no
 * release's schema here has, since these are not all of QEMU's commands.
 */
import { MigrationSettings } from '../schema/migration-settings.ts';
import { schemaOf } from '../schema/qapi/schema.ts';
import type { ReleaseName } from '../schema/release-rules.ts';
import { parseJson } from './json-reader.ts';
import { isObject, type JsonObject, type JsonValue } from './json-value.ts';
import { type Handler, QmpServer } from './server.ts';
import type { QmpSession } from './session.ts';

/** A request of a client, and where it stands. */
export interface RecordedRequest {
  readonly line: number;
  /** As it was sent: JSON, perhaps broken. */
  readonly text: string;
  /** It is the first of a client. */
  readonly isFirst: boolean;
}

/** What a release answers to a request that it refuses. */
interface Refusal {
  readonly release: ReleaseName;
  readonly class: string;
  readonly desc: string;
}

/** A request that somebody refuses, or that cannot be judged. */
export interface JudgedRequest {
  readonly line: number;
  /** Undefined if the request names none. */
  readonly command: string | undefined;
  /** One for each release that refuses it, in the order of the releases. */
  readonly refusals: readonly Refusal[];
  /** False: its command is in none of the schemas. */
  readonly isKnown: boolean;
}

/** Judges each request, in order: capabilities and parameters that were set before count. */
export async function judgeRequests(
  requests: readonly RecordedRequest[],
  releases: readonly ReleaseName[],
): Promise<JudgedRequest[]> {
  const vms = releases.map((release) => new CheckingVm(release));
  const all: JudgedRequest[] = [];
  for (const request of requests) {
    const command = commandOf(request.text);
    const isKnown = command === undefined || everyRelease.some((name) => schemaOf(name).commands.has(command));
    const refusals: Refusal[] = [];
    for (const vm of vms) {
      const refusal = await vm.judge(request, command);
      // QEMU has more commands than vmferry has schemas. What is wrong with the request itself counts all the same.
      if (refusal !== undefined && (isKnown || refusal.class !== 'CommandNotFound')) refusals.push(refusal);
    }
    all.push({ line: request.line, command, refusals, isKnown: isKnown || refusals.length > 0 });
  }
  return all;
}

/** The releases whose schemas are there. */
export const everyRelease = ['7.2', '9.0', '10.0'] as const satisfies readonly ReleaseName[];

/** Undefined if the text is broken, or is not a request. */
function commandOf(text: string): string | undefined {
  let value: JsonValue;
  try {
    value = parseJson(text);
  } catch {
    return undefined;
  }
  const name = isObject(value) ? (value.execute ?? value['exec-oob']) : undefined;
  return typeof name === 'string' ? name : undefined;
}

/** A VM that checks, and does nothing. */
class CheckingVm {
  readonly #server: QmpServer;
  readonly #answers: string[] = [];
  #session: QmpSession | undefined;

  constructor(readonly release: ReleaseName) {
    const schema = schemaOf(release);
    const settings = new MigrationSettings(schema);
    const context = { isListening: false, hasDirtyRing: true, hasBlockMigration: true };
    const names = [...schema.commands.keys()].filter((name) => name !== 'qmp_capabilities');
    const handlers: Record<string, Handler> = {
      ...Object.fromEntries(names.map((name) => [name, () => {}])),
      'migrate-set-capabilities': ({ capabilities }) => settings.setCapabilities(capabilities as never, context),
      'migrate-set-parameters': (given: JsonObject) => settings.setParameters(given),
    };
    const [major = 0, minor = 0] = release.split('.').map(Number);
    const version = { qemu: { major, minor, micro: 0 }, package: '' };
    this.#server = new QmpServer({ schema, version, handlers, now: () => 0 });
  }

  async judge({ text, isFirst }: RecordedRequest, command: string | undefined): Promise<Refusal | undefined> {
    if (isFirst || this.#session === undefined) {
      this.#session = this.#server.connect((answer) => {
        this.#answers.push(answer);
      });
      // A transcript may begin later.
      if (command !== 'qmp_capabilities') await this.#send(negotiation);
    }
    for (const answer of await this.#send(text)) {
      const { error } = parseJson(answer) as JsonObject;
      if (isObject(error)) return { release: this.release, class: String(error.class), desc: String(error.desc) };
    }
    return undefined;
  }

  /** The byte 0xFF ends what is broken. */
  async #send(text: string): Promise<string[]> {
    this.#answers.length = 0;
    const bytes = new TextEncoder().encode(`${text}\n`);
    await this.#session?.receive(bytes);
    if (this.#answers.length === 0) await this.#session?.receive(new Uint8Array([0xff, 0x0a]));
    return this.#answers.splice(0);
  }
}

const negotiation = '{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}';
