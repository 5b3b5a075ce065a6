/** Every kind of input, with every kind of task: the same results as from a file. */
import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { open as openFileHandle, readFile, writeFile } from 'node:fs/promises';
import { createServer, get, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  appendTo,
  type ByteSource,
  convertToMappedRam,
  convertToStream,
  extractBlocks,
  HttpError,
  inspect,
  MemoryFile,
  type MigrationFile,
  NoRoomError,
  open as openPortable,
  readRam,
  search,
  verify,
  ZipWriter,
} from '../../src/index.ts';
import { type NodeOpenable, open } from '../../src/node.ts';
import { moreCases } from '../limits.ts';
import { CountingServer } from './counting-server.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-input-'));
const makeScratch = () => new MemoryFile('scratch');

/** The same guest in several formats: their paths. */
const paths = {
  stream: 'samples/guest.migration',
  libvirt: 'samples/libvirt.save',
  'mapped-ram': join(folder, 'guest.mapped-ram'),
  zip: join(folder, 'guest.zip'),
  qcow2: 'samples/snapshot.qcow2',
};
type Format = keyof typeof paths;
const formats = Object.keys(paths) as Format[];
const bytesOf = {} as Record<Format, Buffer>;
let server: CountingServer;
/** A server without ranges. */
const plain = createServer((request, response) => {
  const bytes = bytesOf[(request.url ?? '').slice(1) as Format];
  response.writeHead(bytes === undefined ? 404 : 200).end(bytes);
});
const plainUrl = (format: string) =>
  `http://127.0.0.1:${(plain.address() as { port: number }).port}/${format}` as `http://${string}`;

beforeAll(async () => {
  const mapped = new MemoryFile();
  const guest = await open(paths.stream);
  await (await convertToMappedRam(guest, mapped)).close();
  await guest.close();
  const content = new Uint8Array(mapped.size);
  mapped.read(content, 0);
  await writeFile(paths['mapped-ram'], content);
  const archive = new MemoryFile();
  const zip = new ZipWriter(appendTo(archive));
  await zip.add('guest.migration', new MemoryFile('guest', await readFile(paths.stream)), { level: 6 });
  await zip.end();
  const packed = new Uint8Array(archive.size);
  archive.read(packed, 0);
  await writeFile(paths.zip, packed);
  for (const format of formats) bytesOf[format] = await readFile(paths[format]);
  server = await CountingServer.start(paths);
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  await server.close();
  plain.close();
  plain.closeAllConnections();
  rmSync(folder, { recursive: true });
});

/** A copy with a buffer of its own. */
const exact = (format: Format) => new Uint8Array(bytesOf[format]);

async function* chunks(format: Format): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < bytesOf[format].length; at += 10_001) yield bytesOf[format].subarray(at, at + 10_001);
}

/** Every form of input. */
const forms: Record<string, (format: Format) => NodeOpenable | Promise<NodeOpenable>> = {
  'a path': (format) => paths[format],
  'a file URL': (format) => pathToFileURL(paths[format]),
  'a URL in a string': (format) => server.url(format),
  'a URL object': (format) => new URL(server.url(format)),
  'a URL of a server without ranges': (format) => plainUrl(format),
  'a Blob': (format) => new Blob([exact(format)]),
  'a File': (format) => new File([exact(format)], 'guest.bin'),
  'an ArrayBuffer': (format) => exact(format).buffer,
  'a SharedArrayBuffer': (format) => {
    const shared = new SharedArrayBuffer(bytesOf[format].length);
    new Uint8Array(shared).set(bytesOf[format]);
    return shared;
  },
  'a Uint8Array': (format) => exact(format),
  'a Buffer': (format) => bytesOf[format],
  'a DataView': (format) => new DataView(exact(format).buffer),
  'another typed array': (format) => new Int8Array(exact(format).buffer),
  'a FileHandle': (format) => openFileHandle(paths[format]),
  'a FileSystemFileHandle': (format) => ({ getFile: async () => new File([exact(format)], 'guest.bin') }),
  'a Response': (format) => fetch(plainUrl(format)),
  'a Response with ranges': (format) => fetch(server.url(format)),
  'a ReadableStream': (format) => new Blob([exact(format)]).stream(),
  'a file as a Readable': (format) => createReadStream(paths[format]),
  'a Readable in pieces': (format) => Readable.from(chunks(format)),
  'a PassThrough': (format) => createReadStream(paths[format]).pipe(new PassThrough()),
  'a response of node:http': (format) => new Promise<IncomingMessage>((resolve) => get(plainUrl(format), resolve)),
  'an async generator': (format) => chunks(format),
  'an async iterable of ArrayBuffers': (format) => ({
    async *[Symbol.asyncIterator]() {
      for await (const chunk of chunks(format)) yield new Uint8Array(chunk).buffer;
    },
  }),
  'a ByteSource': (format) => new MemoryFile('own', bytesOf[format]),
};

const pattern = new TextEncoder().encode('vmferry');

/** Each returns what must be the same for every form. */
const tasks: Record<string, (file: MigrationFile) => Promise<unknown>> = {
  inspect: async (file) => {
    const { inspection } = await inspect(file);
    return [inspection.complete, inspection.machine, inspection.ram.blocks];
  },
  verify: async (file) => (await verify(file)).ok,
  extract: async (file) => {
    const images: MemoryFile[] = [];
    const blocks = await extractBlocks(file, ({ idstr }) => {
      images.push(new MemoryFile(idstr));
      return images.at(-1);
    });
    const sums = images.map((image) => {
      const content = Buffer.alloc(image.size);
      image.read(content, 0);
      return createHash('sha256').update(content).digest('hex');
    });
    return [blocks, sums];
  },
  readRam: async (file) => Buffer.from(await readRam(file, { at: 0, length: 8192, makeScratch })).toString('hex'),
  search: async (file) => {
    const offsets: number[] = [];
    for await (const { offset } of search(file, pattern, { makeScratch })) offsets.push(offset);
    return offsets;
  },
  convert: async (file) => {
    const output = new MemoryFile();
    const conversion = await convertToStream(file, appendTo(output), { makeScratch });
    await conversion.close();
    return [conversion.length, conversion.blocks];
  },
};

const optionsFor = (format: Format) => (format === 'qcow2' ? { snapshot: 'packed' } : {});

/** By default without those that are read like the others. */
const testedFormats = moreCases ? formats : formats.filter((format) => format !== 'libvirt' && format !== 'qcow2');

describe.each(testedFormats)('a guest in the format %s', (format) => {
  const expected = new Map<string, unknown>();
  beforeAll(async () => {
    for (const [name, task] of Object.entries(tasks)) {
      const file = await open(paths[format], optionsFor(format));
      expected.set(name, await task(file));
      await file.close();
    }
  });

  it.each(Object.keys(forms))('is the same from %s, in each task', async (form) => {
    for (const [name, task] of Object.entries(tasks)) {
      const file = await open(await (forms[form] as (format: Format) => NodeOpenable)(format), optionsFor(format));
      expect(await task(file), name).toEqual(expected.get(name));
      await file.close();
    }
  });
});

describe('wrong input', () => {
  const closed = async () => {
    const handle = await openFileHandle(paths.stream);
    await handle.close();
    return handle;
  };
  const locked = () => {
    const stream = new Blob([exact('stream')]).stream();
    stream.getReader();
    return stream;
  };
  const read = async () => {
    const stream = new Blob([exact('stream')]).stream();
    for await (const _ of stream);
    return stream;
  };
  const readResponse = async () => {
    const response = new Response(exact('stream'));
    await response.arrayBuffer();
    return response;
  };
  const readToEnd = async () => {
    const stream = createReadStream(paths.stream);
    for await (const _ of stream);
    return stream;
  };
  const destroyed = () =>
    createReadStream(paths.stream)
      .on('error', () => {})
      .destroy(new Error('no more'));
  const usedGenerator = async () => {
    const used = chunks('stream');
    for await (const _ of used);
    return used;
  };
  const yielding = (...values: unknown[]) => ({
    async *[Symbol.asyncIterator]() {
      yield* values;
    },
  });
  const endlessEmpty = {
    async *[Symbol.asyncIterator]() {
      for (;;) yield new Uint8Array();
    },
  };
  const source = (read: unknown, others = {}) => ({ name: 'own', size: 100, read, close: async () => {}, ...others });

  it.each<[string, () => unknown, RegExp]>([
    ['a number', () => 7, /expected a path, a URL \(string or object\), a Blob or File, .* or a ByteSource, got 7$/],
    ['null', () => null, /got null$/],
    ['undefined', () => undefined, /got undefined$/],
    ['a boolean', () => true, /got true$/],
    ['an empty object', () => ({}), /got a plain object$/],
    ['an array', () => [new Uint8Array(8)], /got an array$/],
    ['a function', () => () => new Uint8Array(8), /got a function$/],
    ['a Map', () => new Map(), /got an object of the class Map$/],
    ['a URL of another kind', () => new URL('ftp://host/file'), /got a URL with the scheme ftp:$/],
    ['a closed FileHandle', closed, /expected an open FileHandle, got one that was closed/],
    ['a FileHandle of a directory', () => openFileHandle(folder), /is a directory/],
    ['a locked stream', locked, /another reader has locked/],
    ['a stream that was read', read, /ReadableStream: expected bytes, got none: it is empty, or was already read/],
    ['a Response that was read', readResponse, /whose body was already read/],
    ['a Response without a body', () => new Response(null), /one without a body/],
    ['a partial Response', () => new Response('x', { status: 206 }), /a part of a file \(206\)/],
    ['a Response with an error status', () => fetch(plainUrl('missing')), /answered 404 Not Found/],
    [
      'an error of node:http',
      () => new Promise((resolve) => get(plainUrl('missing'), resolve)),
      /a response with the status 404/,
    ],
    ['a Readable that was read', readToEnd, /Readable.*(already read to its end|was destroyed)/],
    ['a destroyed Readable', destroyed, /Readable.*one that failed: no more/],
    ['a Readable that fails', () => createReadStream(join(folder, 'missing')), /ENOENT/],
    ['a Readable with an encoding', () => createReadStream(paths.stream, 'latin1'), /decodes its bytes as latin1/],
    ['a Readable of objects', () => Readable.from([{ a: 1 }]), /expected chunks of bytes .*, got a plain object/],
    ['a Writable', () => new Writable({ write() {} }), /only be written/],
    ['an iterable of strings', () => yielding('QEVM'), /expected chunks of bytes .*, got a string/],
    ['an iterable of numbers', () => yielding(1, 2), /expected chunks of bytes .*, got 1/],
    ['an iterable without chunks', () => yielding(), /expected bytes, got none/],
    ['a generator that was read', usedGenerator, /expected bytes, got none: it is empty, or was already read/],
    ['an endless iterable of nothing', () => endlessEmpty, /10001 empty chunks in a row/],
    [
      'an iterator without results',
      () => ({ [Symbol.asyncIterator]: () => ({ next: async () => undefined }) }),
      /expected an iterator's result/,
    ],
    ['a ByteSource without a name', () => source(() => 0, { name: undefined }), /a ByteSource with a name/],
    ['a ByteSource with a wrong size', () => source(() => 0, { size: -1 }), /got the size -1/],
    ['a ByteSource that returns nothing', () => source(() => undefined), /expected read to return 0 to \d+ bytes, got/],
    ['a ByteSource that returns too much', () => source(async () => 1e9), /expected read to return .*, got 1000000000/],
    ['a ByteSource that returns NaN', () => source(async () => Number.NaN), /got NaN/],
  ])('such as %s gives a clear error', async (_, make, message) => {
    const outcome = (async () => {
      const file = await open((await Promise.resolve(make()).then((made) => made)) as NodeOpenable);
      await verify(file).finally(() => file.close());
    })();
    await expect(outcome).rejects.toThrow(message);
  });

  it('such as a Promise says what is missing', async () => {
    const response = fetch(plainUrl('stream'));
    await expect(open(response as never)).rejects.toThrow(/got a Promise: await it first$/);
    await (await response).body?.cancel();
  });

  it('without paths lists no paths', async () => {
    await expect(openPortable('guest.bin' as never)).rejects.toThrow(/^expected a URL .*, got the string "guest.bin"$/);
  });

  it('is an error of the server, with its status', async () => {
    const error = await open(await fetch(plainUrl('missing'))).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(HttpError);
    expect(error).toMatchObject({ status: 404, url: plainUrl('missing') });
  });
});

function silentStream() {
  let isCancelled = false;
  const input = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start: (controller) => controller.enqueue(exact('stream').slice(0, 1000)),
    cancel: () => {
      isCancelled = true;
    },
  });
  return { input, isReleased: () => isCancelled };
}

/** Inputs that never give a byte after the first chunk, and how they show that they were released. */
const silent: Record<string, () => { input: NodeOpenable; isReleased: () => boolean }> = {
  'a Readable': () => {
    const input = new Readable({ read() {} });
    input.push(bytesOf.stream.subarray(0, 1000));
    return { input, isReleased: () => input.destroyed };
  },
  'a ReadableStream': silentStream,
  'a Response': () => {
    const { input, isReleased } = silentStream();
    return { input: new Response(input), isReleased };
  },
  'an iterator': () => {
    let isReturned = false;
    let count = 0;
    const iterator: AsyncIterator<Uint8Array> = {
      next: async () =>
        count++ === 0 ? { done: false, value: exact('stream').subarray(0, 1000) } : new Promise(() => {}),
      return: async () => {
        isReturned = true;
        return { done: true, value: undefined };
      },
    };
    return { input: { [Symbol.asyncIterator]: () => iterator }, isReleased: () => isReturned };
  },
};

describe.each(Object.entries(silent))('%s that stays silent is released', (_, make) => {
  it('when the file is closed', async () => {
    const { input, isReleased } = make();
    const file = await open(input);
    await file.close();
    await expect.poll(isReleased).toBe(true);
  });

  it('when a task is cancelled, and the file closed', async () => {
    const { input, isReleased } = make();
    const ending = new AbortController();
    const file = await open(input);
    const verifying = verify(file, { signal: ending.signal });
    setTimeout(() => ending.abort(new Error('enough')), 10);
    await expect(verifying).rejects.toThrow('enough');
    await file.close();
    await expect.poll(isReleased).toBe(true);
  });

  it('when opening is cancelled', async () => {
    const { input, isReleased } = make();
    const ending = new AbortController();
    const opening = open(input, { signal: ending.signal, spool: 'always' });
    setTimeout(() => ending.abort(new Error('enough')), 10);
    await expect(opening).rejects.toThrow('enough');
    await expect.poll(isReleased).toBe(true);
  });

  it('when another part of the migration cannot be opened', async () => {
    const { input, isReleased } = make();
    await expect(open(input, { channels: [join(folder, 'missing')] })).rejects.toThrow(/no such file/);
    await expect.poll(isReleased).toBe(true);
  });
});

describe('an input that cannot seek', () => {
  const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith('.vmferry'));

  it('is copied at once if that is wanted, and can be read any number of times', async () => {
    const before = leftovers();
    for (const format of ['stream', 'libvirt', 'mapped-ram', 'zip'] as const) {
      const file = await open(chunks(format), { spool: 'always' });
      expect(file.isSeekable).toBe(true);
      expect([(await verify(file)).ok, (await verify(file)).ok]).toEqual([true, true]);
      expect((await inspect(file)).inspection.complete).toBe(true);
      await file.close();
    }
    expect(leftovers()).toEqual(before);
  });

  it('is copied with its channels', async () => {
    const channels = [0, 1].map((i) => createReadStream(`samples/multifd.channel-${i}`));
    const file = await open(createReadStream('samples/multifd.migration'), { channels, spool: 'always' });
    expect([(await verify(file)).ok, (await verify(file)).ok]).toEqual([true, true]);
    await file.close();
  });

  it('is copied up to a limit, and the scratch file is closed', async () => {
    let isClosed = false;
    const scratch = Object.assign(new MemoryFile(), {
      close: async () => {
        isClosed = true;
      },
    });
    const opening = open(chunks('zip'), { spoolLimit: 5000, makeSpool: () => scratch });
    await expect(opening).rejects.toThrow(NoRoomError);
    await expect(opening).rejects.toThrow(/more than the 5000 bytes .*\(spoolLimit\): store it in a file first/);
    expect(isClosed).toBe(true);
  });

  it('closes the scratch file if it fails while it is copied, and when the file is closed', async () => {
    const closes: string[] = [];
    const makeSpool = (name: string) => () =>
      Object.assign(new MemoryFile(), { close: async () => void closes.push(name) });
    async function* failing() {
      yield bytesOf.zip.subarray(0, 5000);
      throw new Error('the cable was cut');
    }
    await expect(open(failing(), { makeSpool: makeSpool('failed') })).rejects.toThrow('the cable was cut');
    const file = await open(chunks('zip'), { makeSpool: makeSpool('closed') });
    expect(closes).toEqual(['failed']);
    await file.close();
    expect(closes).toEqual(['failed', 'closed']);
  });

  it('is refused if it must not be copied', async () => {
    await expect(open(chunks('qcow2'), { snapshot: 'packed', spool: 'never' })).rejects.toThrow(/random access/);
  });

  it('reports a FileHandle that is closed during the work', async () => {
    const handle = await openFileHandle(paths.stream);
    const file = await open(handle);
    await handle.close();
    await expect(verify(file)).rejects.toThrow(/was closed while it was read/);
    await file.close();
  });

  it('can be a source whose class is unknown', async () => {
    const own: ByteSource = {
      name: 'own',
      size: undefined,
      read: (target, position) => new MemoryFile('', bytesOf.stream).read(target, position),
      close: async () => {},
    };
    const file = await open(own);
    expect((await verify(file)).ok).toBe(true);
  });
});
