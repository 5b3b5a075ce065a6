/** Programs whose standard input and output are a migration's stream. */
import { spawn } from 'node:child_process';
import type { Connection } from '../connection.ts';
import { connectionOverProgram } from './socket-connection.ts';
import { localError, systemText } from './system-text.ts';

/**
 * Starts a program. Its standard error is that of this process.
 * @throws Error with QEMU's text and the system's `code` if it cannot be started
 */
export async function startProgram(args: readonly string[], name: string): Promise<Connection> {
  const [file, ...rest] = args;
  if (file === undefined) throw Object.assign(new Error('expected a program to execute'), { code: 'EINVAL' });
  const child = spawn(file, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  const exit = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => {
      const words = `Failed to execute child process “${file}” (${systemText(error)})`;
      reject(Object.assign(localError(words, error), { message: words }));
    });
  });
  child.on('error', () => {
    // It could not be killed, because it has ended.
  });
  const kill = () => void child.kill();
  return connectionOverProgram({ stdin: child.stdin, stdout: child.stdout, kill, exit }, name);
}
