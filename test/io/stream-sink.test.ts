import { connect, createServer } from 'node:net';
import { PassThrough, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { type ByteSink, MemoryFile, open, pipeTo, RawRam, verify, writeMultifd, writeStream } from '../../src/node.ts';

const image = new Uint8Array(3 << 20).fill(7, 100_000, 2 << 20);
const ram = () => new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
const vm = () => ({ configuration: { machine: 'none', capabilities: [] }, ram: ram() });

async function expectWhole(bytes: Uint8Array): Promise<void> {
  const file = await open(bytes);
  const { ok, pageRecords } = await verify(file);
  expect([ok, pageRecords]).toEqual([true, image.length / 4096]);
}

describe('a stream of Node as a sink', () => {
  it('gets all bytes, even if it keeps its chunks', async () => {
    const stream = new PassThrough({ highWaterMark: 1 << 30 });
    const { length } = await writeStream(vm(), pipeTo(stream));
    stream.end();
    const bytes = await buffer(stream);
    expect(bytes.length).toBe(length);
    await expectWhole(bytes);
  });

  it('may be a socket', async () => {
    const received = new Promise<Buffer>((resolve) => {
      const server = createServer((socket) => {
        server.close();
        void buffer(socket).then(resolve);
      }).listen(0, '127.0.0.1', () => {
        const socket = connect((server.address() as { port: number }).port, '127.0.0.1');
        void writeStream(vm(), pipeTo(socket)).then(() => socket.end());
      });
    });
    await expectWhole(await received);
  });

  it('is waited for', async () => {
    let inside = 0;
    const stream = new Writable({
      write(_chunk, _encoding, done) {
        expect(++inside).toBe(1);
        setImmediate(() => {
          inside--;
          done();
        });
      },
    });
    const sink = pipeTo(stream);
    for (let i = 0; i < 5; i++) await sink.write(new Uint8Array(10));
    expect(inside).toBe(0);
  });

  it('ends the writing with its error if it fails, without any other listener', async () => {
    const full = new Writable({ write: (_chunk, _encoding, done) => done(new Error('no room')) });
    await expect(writeStream(vm(), pipeTo(full))).rejects.toThrow('no room');
  });

  it('ends the writing if it is destroyed meanwhile', async () => {
    const stream = new Writable({ write: () => setImmediate(() => stream.destroy()) });
    const sink = pipeTo(stream);
    await expect(async () => sink.write(new Uint8Array(1))).rejects.toThrow();
    await expect(async () => sink.write(new Uint8Array(1))).rejects.toThrow();
  });
});

describe('a stream of the web as a sink', () => {
  it('gets all bytes, and can then be closed', async () => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>({}, { highWaterMark: 1 });
    const bytes = new Response(readable as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer();
    await writeStream(vm(), pipeTo(writable));
    await writable.close();
    await expectWhole(new Uint8Array(await bytes));
  });

  it('ends the writing with its error if it fails', async () => {
    const stream = new WritableStream({
      write() {
        throw new Error('no room');
      },
    });
    await expect(writeStream(vm(), pipeTo(stream))).rejects.toThrow('no room');
  });
});

describe('a value that is not a sink', () => {
  it.each<[string, unknown, string]>([
    ['a store', new MemoryFile(), 'appendTo(store)'],
    ['a stream of Node', new PassThrough(), 'pipeTo(stream)'],
    ['a stream of the web', new WritableStream(), 'pipeTo(stream)'],
    ['nothing', undefined, 'got undefined'],
    ['a path', 'out.stream', 'got string'],
  ])('is refused: %s', async (_, output, message) => {
    const asking = [
      () => writeStream(vm(), output as ByteSink),
      () => writeMultifd(vm(), output as ByteSink, [{ write() {} }]),
      () => writeMultifd(vm(), { write() {} }, [output as ByteSink]),
    ];
    for (const ask of asking) {
      const error = await ask().catch((error) => error);
      expect(error).toBeInstanceOf(TypeError);
      expect(error.message).toContain(message);
    }
  });
});
