/**
 * A client of a monitor that passes descriptors (SCM_RIGHTS), which Node cannot. Python sends what the test says, with
 * descriptors that it inherited from it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

type Json = Record<string, unknown>;

/** Reads lines `N,N… TEXT` from standard input, and sends each text with these descriptors. Prints what comes. */
const script = `
import array, socket, sys, threading
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
def receive():
    while True:
        data = line.recv(65536)
        if not data:
            return
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
threading.Thread(target=receive, daemon=True).start()
for order in sys.stdin:
    fds, text = order.split(' ', 1)
    rights = array.array('i', [int(fd) for fd in fds.split(',') if fd])
    line.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [])
`;

/** The first descriptor of the test's that Python inherits. */
const firstInherited = 3;

export class DescriptorClient {
  readonly #child: ChildProcess;
  readonly #inherited: readonly number[];
  readonly #answers: Json[] = [];
  readonly #waiting: ((answer: Json) => void)[] = [];
  readonly #gone: Promise<void>;

  /**
   * @param inherited the descriptors of the test that may be passed. They stay the test's
   */
  private constructor(socket: string, inherited: readonly number[]) {
    this.#inherited = inherited;
    this.#child = spawn('python3', ['-c', script, socket], { stdio: ['pipe', 'pipe', 'inherit', ...inherited] });
    this.#gone = new Promise((resolve) => this.#child.once('close', () => resolve()));
    createInterface(this.#child.stdout as Readable).on('line', (line) => {
      const message = JSON.parse(line) as Json;
      if (message.event !== undefined || message.QMP !== undefined) return;
      const resolve = this.#waiting.shift();
      if (resolve === undefined) this.#answers.push(message);
      else resolve(message);
    });
  }

  /** Connects, and negotiates with these arguments. */
  static async connect(socket: string, inherited: readonly number[] = [], given: Json = {}): Promise<DescriptorClient> {
    const client = new DescriptorClient(socket, inherited);
    await client.execute('qmp_capabilities', given);
    return client;
  }

  /** Sends a text, which ends with a line break, with descriptors. */
  send(text: string, passed: readonly number[] = []): void {
    const numbers = passed.map((fd) => firstInherited + this.#inherited.indexOf(fd));
    (this.#child.stdin as Writable).write(`${numbers.join(',')} ${text}\n`);
  }

  /** The next answer: what was returned, or the text of the error. */
  async answer(): Promise<unknown> {
    const { error, return: value } =
      this.#answers.shift() ?? (await new Promise<Json>((resolve) => this.#waiting.push(resolve)));
    return error === undefined ? value : (error as Json).desc;
  }

  /** Runs a command that descriptors come with. */
  execute(command: string, given: Json = {}, ...passed: number[]): Promise<unknown> {
    this.send(JSON.stringify({ execute: command, arguments: given }), passed);
    return this.answer();
  }

  /** Waits until the last migration is over. Returns its status and error. */
  async migrated(): Promise<{ status: unknown; error?: unknown }> {
    for (;;) {
      const { status, 'error-desc': error } = (await this.execute('query-migrate')) as Json;
      if (['completed', 'failed'].includes(String(status))) return error === undefined ? { status } : { status, error };
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** The client goes, at once. Resolves when it has gone. */
  async leave(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#gone;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.leave();
  }
}
