/** `vmferry send` and `vmferry relay`, ended by a signal at each moment: the exit code, one error, and where the guest is. */
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { fixturePath } from '../../fixture-files.ts';
import { LiveCommand } from '../../qemu/live-command.ts';
import { TlsDirectories } from '../../tls-directories.ts';
import { captured, PlayedSource, withReturnPath } from './played-source.ts';

const root = mkdtempSync(join(tmpdir(), 'vmferry-signals-'));
const tls = new TlsDirectories();
afterAll(() => {
  rmSync(root, { recursive: true, force: true });
  tls.remove();
});

let dir = '';
let cases = 0;
beforeEach(() => {
  dir = join(root, `case-${cases++}`);
  mkdirSync(join(dir, 'tmp'), { recursive: true });
});

/** A target on a unix socket, which says nothing. */
class SilentTarget {
  readonly path = join(dir, 'target');
  readonly uri = `unix:${this.path}`;
  readonly sockets: Socket[] = [];
  readonly #server = createServer({ allowHalfOpen: true }, (socket) => {
    this.sockets.push(socket);
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      this.#bytes = Buffer.concat([this.#bytes, bytes]);
      this.#wake();
    });
    this.#wake();
  });
  #bytes = Buffer.alloc(0);
  #wake: () => void = () => {};

  async listen(): Promise<this> {
    this.#server.listen(this.path);
    await once(this.#server, 'listening');
    return this;
  }

  /** Resolves when it got what `isThere` wants. */
  async got(isThere: (bytes: Buffer) => boolean): Promise<void> {
    while (!isThere(this.#bytes)) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  [Symbol.dispose](): void {
    for (const socket of this.sockets) socket.destroy();
    this.#server.close();
  }
}

const start = (...args: string[]) => new LiveCommand([...args, '--json'], { env: { TMPDIR: join(dir, 'tmp') } });

/** Ends a command, and requires the answer of one that a signal ended. */
async function end(command: LiveCommand, guest: string, signal: NodeJS.Signals = 'SIGINT', expected = 130) {
  command.kill(signal);
  const { code, stdout, stderr } = await command.ended;
  expect([code, stdout], stderr).toEqual([expected, '']);
  const lines = stderr.trimEnd().split('\n');
  expect(lines.filter((line) => line.startsWith('{"error"'))).toHaveLength(1);
  const { error } = JSON.parse(lines.at(-1) as string);
  expect(error).toMatchObject({ guest, next: expect.any(String), code: 'interrupted', message: `ended by ${signal}` });
  expect(readdirSync(join(dir, 'tmp'))).toEqual([]);
}

describe('send', () => {
  const file = fixturePath('pc-plain-10.0.bin');

  it('in a handshake that the target does not answer', async () => {
    using target = await new SilentTarget().listen();
    const object = `tls-creds-psk,id=tls0,endpoint=client,dir=${tls.psk('qemu:00112233445566778899aabbccddeeff\n')}`;
    await using command = start('send', file, target.uri, '--object', object, '--tls-creds', 'tls0');
    await target.got((bytes) => bytes.length > 0);
    await end(command, 'source');
  });

  it.each([['SIGHUP', 129] as const, ['SIGINT', 130] as const, ['SIGTERM', 143] as const])(
    'in RAM, %s',
    async (signal, expected) => {
      using target = await new SilentTarget().listen();
      await using command = start('send', file, target.uri, '--max-bandwidth', '50k');
      await target.got((bytes) => bytes.length > 10_000);
      await end(command, 'source', signal, expected);
    },
  );

  it('when everything is sent, and nothing is confirmed', async () => {
    using target = await new SilentTarget().listen();
    await using command = start('send', file, target.uri);
    await target.got((bytes) => bytes.includes('"devices"'));
    await end(command, 'either');
  });
});

describe('relay', () => {
  const answered = withReturnPath(captured('none-plain-10.0'));
  const plain = captured('none-plain-10.0');

  it('before a source connects: no socket is left', async () => {
    using target = await new SilentTarget().listen();
    await using command = start('relay', `unix:${join(dir, 'relay')}`, target.uri);
    await command.uri();
    await end(command, 'source');
    expect(existsSync(join(dir, 'relay'))).toBe(false);
    expect(target.sockets).toHaveLength(0);
  });

  it.each([['with a return path', answered, 'source'] as const, ['without one', plain, 'either'] as const])(
    'in RAM, and when everything is sent, %s',
    async (_, stream, guest) => {
      for (const part of [2000, stream.length]) {
        const tee = join(dir, 'copy');
        using target = await new SilentTarget().listen();
        await using command = start('relay', `unix:${join(dir, 'relay')}`, target.uri, '--tee', tee);
        const source = await PlayedSource.connect(await command.uri());
        await source.send(stream.subarray(0, part));
        await target.got((bytes) => bytes.length === part);
        // The target that has all of the guest may have started it.
        await end(command, part === stream.length ? 'either' : guest);
        expect(await source.ended).not.toBe('');
        expect(readdirSync(dir).sort()).toEqual(['target', 'tmp']);
        source.reset();
      }
    },
  );
});
