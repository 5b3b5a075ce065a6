/** Sends texts to a QMP socket, and collects all answers to each. */

import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { type Step, withoutTimes } from '../qmp/transcript.ts';
import { Qemu, type QemuVersion } from './qemu.ts';

/** Sends bytes, and returns all lines that come until the answer to a command sent after them. */
type Exchange = (bytes: Uint8Array | string) => Promise<string[]>;

/** Waits for a line that matches, and returns those up to it. */
type Until = (last: RegExp) => Promise<string[]>;

/**
 * Starts a QEMU without devices, and talks to a monitor of it that nothing else uses. `prepare` makes files in its
 * directory, and returns more arguments.
 */
export async function withMonitor<T>(
  version: QemuVersion,
  use: (exchange: Exchange, until: Until) => Promise<T>,
  prepare: (dir: string) => string[] = () => [],
): Promise<T> {
  const dir = Qemu.makeDir();
  const path = `${dir}/second`;
  const args = ['-M', 'none', '-m', '16', ...prepare(dir), '-qmp', `unix:${path},server=on,wait=off`];
  const qemu = await Qemu.start({ version, args, dir });
  try {
    const socket = createConnection(path);
    socket.setEncoding('latin1');
    const lines = readLines(socket);
    let count = 0;
    await lines(/"QMP"/);
    const exchange: Exchange = async (bytes) => {
      const end = `end-${count++}`;
      socket.write(bytes);
      socket.write(`{"execute": "query-name", "id": "${end}"}\n`);
      return (await lines(new RegExp(`"${end}"`))).slice(0, -1);
    };
    const result = await use(exchange, lines);
    socket.destroy();
    return result;
  } finally {
    await qemu.kill();
  }
}

function readLines(socket: Socket): Until {
  let text = '';
  socket.on('data', (chunk: string) => {
    text += chunk;
  });
  return async (last) => {
    const lines: string[] = [];
    for (;;) {
      const end = text.indexOf('\r\n');
      if (end < 0) {
        await once(socket, 'data');
        continue;
      }
      const line = text.slice(0, end);
      text = text.slice(end + 2);
      lines.push(line);
      if (last.test(line)) return lines;
    }
  };
}

/** Plays a transcript, and returns the answers to each step. */
export const play = (version: QemuVersion, steps: readonly Step[]): Promise<string[][]> =>
  withMonitor(version, async (exchange) => {
    const answers: string[][] = [];
    let before = '';
    for (const { text, isPart } of steps) {
      if (isPart) {
        before += `${text}\n`;
        answers.push([]);
        continue;
      }
      answers.push((await exchange(`${before}${text}\n`)).map(withoutTimes));
      before = '';
    }
    return answers;
  });
