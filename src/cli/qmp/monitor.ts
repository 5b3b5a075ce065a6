/** Opens what `vmferry qmp` talks to: a socket, a program that speaks QMP, or a domain of libvirt. */
import { spawn } from 'node:child_process';
import { type Connection, PeerError } from '../../io/connection.ts';
import { parseMigrationUri } from '../../io/migration-address.ts';
import { connectTo } from '../../io/node/connect.ts';
import { MonitorBusyError, QmpClient } from '../../qmp/client.ts';
import { JsonReader } from '../../qmp/json-reader.ts';
import { isObject, type JsonObject, printJson } from '../../qmp/json-value.ts';
import { UsageError } from '../exit-codes.ts';

/** @throws UsageError if another client holds the monitor; PeerError if it cannot be reached */
export async function openMonitor(name: string, signal: AbortSignal): Promise<QmpClient> {
  const connection = name.startsWith('libvirt:')
    ? new VirshLine(name.slice(8))
    : await connectTo(addressOf(name), { signal });
  try {
    return await QmpClient.connect(connection, { signal });
  } catch (error) {
    if (!(error instanceof MonitorBusyError)) throw error;
    throw new UsageError(
      `${name} does not greet: another client holds this monitor, and QEMU talks to one at a time. End that client, or give QEMU another -qmp socket`,
    );
  }
}

function addressOf(name: string) {
  const address = parseMigrationUri(/^(?:unix|tcp|exec):/.test(name) ? name : `unix:${name}`);
  if (address.transport === 'exec' || (address.transport === 'socket' && address.type !== 'fd')) return address;
  throw new UsageError(`expected unix:PATH, a path, tcp:HOST:PORT, exec:COMMAND or libvirt:DOMAIN, got ${name}`);
}

/** A domain of libvirt, which passes on one command at a time and no events. */
class VirshLine implements Connection {
  readonly name: string;
  readonly size = undefined;
  readonly canRead = true;
  readonly canWrite = true;
  readonly method = 'program';
  #output = new TextEncoder().encode('{"QMP": {"version": {}, "capabilities": []}}\r\n');
  #isEnded = false;
  #wake: (() => void) | undefined;
  readonly #reader = new JsonReader((message) => {
    if ('value' in message && isObject(message.value)) void this.#run(message.value);
  });

  constructor(readonly domain: string) {
    this.name = `libvirt:${domain}`;
  }

  async read(target: Uint8Array): Promise<number> {
    while (this.#output.length === 0) {
      if (this.#isEnded) return 0;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const part = this.#output.subarray(0, target.length);
    target.set(part);
    this.#output = this.#output.slice(part.length);
    return part.length;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#reader.push(bytes);
  }

  async end(): Promise<void> {
    this.destroy();
  }

  destroy(): void {
    this.#isEnded = true;
    this.#wake?.();
  }

  async close(): Promise<void> {
    this.destroy();
  }

  async #run(request: JsonObject): Promise<void> {
    const { id } = request;
    // libvirt has negotiated already.
    const answer = request.execute === 'qmp_capabilities' ? { return: {} } : await this.#ask(request);
    const text = printJson({ ...answer, id });
    this.#output = Buffer.concat([this.#output, new TextEncoder().encode(`${text}\n`)]);
    this.#wake?.();
  }

  async #ask({ execute, arguments: given = {} }: JsonObject): Promise<object> {
    const { output, errors } = await run('virsh', [
      ...['qemu-monitor-command', this.domain, printJson({ execute, arguments: given })],
    ]);
    let answer: object | undefined;
    const reader = new JsonReader((message) => {
      if ('value' in message && isObject(message.value)) answer = message.value;
    });
    reader.push(output);
    return answer ?? { error: { class: 'GenericError', desc: errors.trim() || 'virsh gave no answer' } };
  }
}

/** @throws PeerError if the program cannot be started */
async function run(file: string, args: readonly string[]): Promise<{ output: Buffer; errors: string }> {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const output: Buffer[] = [];
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    errors += chunk;
  });
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new PeerError(`cannot start ${file}: ${error.message}`, { cause: error })));
    child.once('close', () => resolve({ output: Buffer.concat(output), errors }));
  });
}
