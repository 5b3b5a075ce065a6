/** A live command as a child process: its ready line, its words, and its end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { hangGuardMs } from '../limits.ts';
import { cliPath } from '../run-cli.ts';

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export interface LiveEnd {
  code: number | null;
  stdout: string;
  stderr: string;
}

interface LiveCommandOptions {
  cwd?: string;
  env?: Record<string, string>;
  /** Default: nothing. */
  stdin?: 'ignore' | 'pipe' | number;
  /** A descriptor of this process. Default: what it prints is kept as text. */
  stdout?: number;
  /** What it gets as descriptors from 3 on: a number is a descriptor of this process, `pipe` a socket to this process. */
  inherited?: ('pipe' | number)[];
}

export class LiveCommand {
  readonly child: ChildProcess;
  /** Resolves when it has ended. */
  readonly ended: Promise<LiveEnd>;
  stdout = '';
  stderr = '';
  #wake: () => void = () => {};
  #hasEnded = false;

  constructor(args: readonly string[], options: LiveCommandOptions = {}) {
    const { stdin = 'ignore', stdout = 'pipe', inherited = [] } = options;
    this.child = spawn(process.execPath, [cliPath, ...args], {
      stdio: [stdin, stdout, 'pipe', ...inherited],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, NODE_OPTIONS: '', ...options.env },
    });
    running.add(this.child);
    for (const name of ['stdout', 'stderr'] as const) {
      this.child[name]?.setEncoding('utf8').on('data', (text: string) => {
        this[name] += text;
        this.#wake();
      });
    }
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code) => {
        running.delete(this.child);
        this.#hasEnded = true;
        this.#wake();
        resolve({ code, stdout: this.stdout, stderr: this.stderr });
      });
    });
  }

  /** Waits for a match on standard error. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#expect('stderr', pattern);
  }

  /** Waits for a match on standard output. */
  prints(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#expect('stdout', pattern);
  }

  async #expect(where: 'stdout' | 'stderr', pattern: RegExp): Promise<RegExpExecArray> {
    const guard = setTimeout(() => this.child.kill('SIGKILL'), hangGuardMs);
    try {
      for (;;) {
        const match = pattern.exec(this[where]);
        if (match !== null) return match;
        if (this.#hasEnded) throw new Error(`expected ${pattern}, got the end of the command: ${this.stderr}`);
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      clearTimeout(guard);
    }
  }

  /** The URI of its ready line. */
  async uri(): Promise<string> {
    const [, uri] = await this.says(/^listening on (\S+)$/m);
    return uri as string;
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    this.child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasEnded) this.child.kill('SIGKILL');
    await this.ended;
  }
}
