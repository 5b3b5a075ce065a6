/** Sets registers of a stopped machine through QEMU's gdb stub, whose architecture's numbers of registers the caller knows. */
import { createConnection, type Socket } from 'node:net';

export class GdbStub {
  #received = '';
  #wake = () => {};

  private constructor(readonly socket: Socket) {
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.#received += text;
      this.#wake();
    });
  }

  /** Connects to the socket of `-gdb unix:PATH`. */
  static async connect(path: string): Promise<GdbStub> {
    const socket = createConnection(path);
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const stub = new GdbStub(socket);
    await stub.ask('QStartNoAckMode');
    socket.write('+');
    await stub.ask('qSupported:multiprocess+;xmlRegisters=i386');
    return stub;
  }

  /** Sends a packet, and waits for the answer. */
  async ask(packet: string): Promise<string> {
    const sum = [...packet].reduce((all, char) => (all + char.charCodeAt(0)) & 0xff, 0);
    this.socket.write(`$${packet}#${sum.toString(16).padStart(2, '0')}`, 'latin1');
    for (;;) {
      const found = /\$([^#]*)#../.exec(this.#received);
      if (found !== null) {
        this.#received = this.#received.slice(found.index + found[0].length);
        return found[1] as string;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Gives registers of all CPUs different values. */
  async fill(registers: readonly RegisterRange[]): Promise<void> {
    for (const thread of (await this.ask('qfThreadInfo')).slice(1).split(',')) {
      await this.ask(`Hg${thread}`);
      for (const { first, count, bytes } of registers) {
        for (let number = first; number < first + count; number++) {
          const value = Array.from(
            { length: bytes },
            (_, i) => (number * 37 + i * 11 + thread.length * 5 + thread.charCodeAt(thread.length - 1)) & 0xff,
          );
          await this.ask(`P${number.toString(16)}=${Buffer.from(value).toString('hex')}`);
        }
      }
    }
  }

  close(): void {
    this.socket.destroy();
  }
}

/** Registers that follow each other in the stub's numbers. */
export interface RegisterRange {
  first: number;
  count: number;
  bytes: number;
}
