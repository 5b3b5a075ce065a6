/** Files on a web server: with ranges and without, slow, on broken connections, and changing during the read. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type ByteSource, HttpError, inspect, MemoryFile, openHttp, openRamContent, verify } from '../../src/index.ts';
import { open } from '../../src/node.ts';
import { MappedRamStore } from '../../src/store/mapped-ram-store.ts';
import { loadContainerFixture } from '../container-fixtures.ts';
import { loadFixtures } from '../fixture-files.ts';
import {
  capabilities,
  configuration,
  counted,
  EOF,
  EOS,
  end,
  footer,
  header,
  join,
  KIB4,
  u32,
  u64,
  vmdescription,
} from '../oracle/build.ts';

interface ServerOptions {
  ranges?: boolean;
  etag?: (request: number) => string;
  /** Called first. Returns true if it has answered. */
  instead?: (request: IncomingMessage, response: ServerResponse, count: number) => boolean;
  /** How many bytes of a body are sent before the connection is cut. Undefined: all. */
  cutAfter?: (request: number) => number | undefined;
}

interface Server {
  url: string;
  requests: { range: string | undefined; authorization: string | undefined }[];
  /** Bytes of bodies passed to the connections. */
  sent: number;
  close(): Promise<void>;
}

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function serve(bytes: Uint8Array, options: ServerOptions = {}): Promise<Server> {
  const { ranges = true, etag = () => '"one"', instead, cutAfter } = options;
  const http = createServer((request, response) => {
    const { range, authorization } = request.headers;
    server.requests.push({ range, authorization });
    const count = server.requests.length;
    if (instead?.(request, response, count)) return;
    const match = ranges ? /^bytes=(\d+)-(\d+)$/.exec(range ?? '') : null;
    const headers: Record<string, string | number> = { etag: etag(count) };
    const condition = request.headers['if-range'];
    const isWhole = match === null || (condition !== undefined && condition !== etag(count));
    const start = isWhole ? 0 : Number(match[1]);
    const end = isWhole ? bytes.length : Math.min(bytes.length, Number(match[2]) + 1);
    if (!isWhole && start >= bytes.length) return void response.writeHead(416).end();
    if (!isWhole) headers['content-range'] = `bytes ${start}-${end - 1}/${bytes.length}`;
    headers['content-length'] = end - start;
    response.writeHead(isWhole ? 200 : 206, headers);
    const cut = cutAfter?.(count);
    const write = (at: number): void => {
      const limit = cut === undefined ? end : Math.min(end, start + cut);
      if (at >= limit) return void (limit < end ? response.destroy() : response.end());
      const piece = bytes.subarray(at, Math.min(limit, at + 16_384));
      server.sent += piece.length;
      response.write(piece, (error) => (error ? undefined : write(at + piece.length)));
    };
    write(start);
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const server: Server = {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/guest.bin`,
    requests: [],
    sent: 0,
    close: () =>
      new Promise((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      }),
  };
  servers.push(server);
  return server;
}

const sample = new Uint8Array(300_000).map((_, i) => (i * 2_654_435_761) >>> 24);

async function readAll(source: ByteSource, step = 70_000): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let at = 0; ; ) {
    const part = new Uint8Array(step);
    const count = await source.read(part, at);
    if (count === 0) return new Uint8Array(Buffer.concat(parts));
    parts.push(part.subarray(0, count));
    at += count;
  }
}

const isEqual = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

describe('a file on a web server', () => {
  it('has random access: a single read is one request of its size', async () => {
    const server = await serve(sample);
    const source = await openHttp(server.url);
    expect(source.size).toBe(sample.length);
    const part = new Uint8Array(1000);
    expect(await source.read(part, 200_000)).toBe(1000);
    expect(isEqual(part, sample.subarray(200_000, 201_000))).toBe(true);
    expect(server.requests.map(({ range }) => range)).toEqual(['bytes=0-16383', 'bytes=200000-200999']);
    expect(await source.read(part, 299_500)).toBe(500);
    expect(await source.read(part, 300_000)).toBe(0);
    expect(await source.read(part, 100)).toBe(1000);
    expect(server.requests.length).toBe(3);
    await source.close();
  });

  it('is read from start to end in fewer and fewer requests', async () => {
    const large = new Uint8Array(20 << 20).map((_, i) => i >> 12);
    const server = await serve(large);
    const source = await openHttp(server.url);
    expect(isEqual(await readAll(source, 1 << 20), large)).toBe(true);
    expect(server.requests.length).toBeLessThan(10);
    await source.close();
  });

  it('serves overlapping reads, each with its own bytes', async () => {
    const source = await openHttp((await serve(sample)).url);
    const starts = [250_000, 20_000, 120_000, 20_100];
    const parts = starts.map(() => new Uint8Array(5000));
    await Promise.all(starts.map((start, i) => source.read(parts[i] as Uint8Array, start)));
    starts.forEach((start, i) => {
      expect(isEqual(parts[i] as Uint8Array, sample.subarray(start, start + 5000))).toBe(true);
    });
    await source.close();
  });

  it('may be empty', async () => {
    const source = await openHttp((await serve(new Uint8Array())).url);
    expect(await source.read(new Uint8Array(1), 0)).toBe(0);
    await source.close();
  });

  it('without ranges is read forward, once', async () => {
    const server = await serve(sample, { ranges: false });
    const source = await openHttp(server.url);
    expect(source.size).toBeUndefined();
    expect(isEqual(await readAll(source), sample)).toBe(true);
    await expect(source.read(new Uint8Array(1), 0)).rejects.toThrow(RangeError);
    expect(server.requests.length).toBe(1);
    await source.close();
  });

  it('is read on from where a connection broke', async () => {
    const server = await serve(sample, { cutAfter: (request) => (request % 2 === 0 ? 40_000 : undefined) });
    const source = await openHttp(server.url);
    expect(isEqual(await readAll(source), sample)).toBe(true);
    await source.close();
  });

  it('is given up, with its place, if every connection breaks before a byte', async () => {
    const server = await serve(sample, { cutAfter: (request) => (request > 1 ? 0 : undefined) });
    const source = await openHttp(server.url);
    const reading = source.read(new Uint8Array(10), 100_000);
    await expect(reading).rejects.toThrow(HttpError);
    await expect(reading).rejects.toMatchObject({ code: 'ERR_HTTP', url: server.url, offset: 100_000 });
    await source.close();
  });

  it('without ranges is an error, with its place, if the connection breaks', async () => {
    const source = await openHttp((await serve(sample, { ranges: false, cutAfter: () => 50_000 })).url);
    await expect(readAll(source)).rejects.toMatchObject({ code: 'ERR_HTTP', offset: 50_000 });
    await source.close();
  });

  it('is an error if it changes during the read', async () => {
    const server = await serve(sample, { etag: (request) => (request < 3 ? '"one"' : '"two"') });
    const source = await openHttp(server.url);
    await source.read(new Uint8Array(10), 100_000);
    await expect(source.read(new Uint8Array(10), 50_000)).rejects.toThrow(/changed while it was read/);
    await source.close();
  });

  it('is requested again if the server is busy, but not if the file is missing', async () => {
    const busy = await serve(sample, {
      instead: (_, response, count) => {
        if (count === 2) response.writeHead(503).end();
        return count === 2;
      },
    });
    const source = await openHttp(busy.url);
    expect(await source.read(new Uint8Array(10), 100_000)).toBe(10);
    await source.close();
    const missing = await serve(sample, {
      instead: (_, response) => {
        response.writeHead(404).end();
        return true;
      },
    });
    await expect(openHttp(missing.url)).rejects.toMatchObject({ status: 404, offset: 0, url: missing.url });
    expect(missing.requests.length).toBe(1);
  });

  it('is found behind a redirect', async () => {
    const server = await serve(sample, {
      instead: (request, response) => {
        if (request.url !== '/old') return false;
        response.writeHead(302, { location: '/guest.bin' }).end();
        return true;
      },
    });
    const source = await openHttp(server.url.replace('guest.bin', 'old'));
    expect(isEqual(await readAll(source), sample)).toBe(true);
    await source.close();
  });

  it('is requested with the password in its URL, which no message shows', async () => {
    const server = await serve(sample, {
      instead: (_, response, count) => {
        if (count > 1) response.writeHead(403).end();
        return count > 1;
      },
    });
    const url = `${server.url.replace('//', '//user:s%C3%A9cret@')}?token=hidden`;
    const source = await openHttp(url);
    expect(server.requests[0]?.authorization).toBe(`Basic ${Buffer.from('user:sécret').toString('base64')}`);
    expect(source.name).toBe(server.url);
    const failure = await Promise.resolve(source.read(new Uint8Array(10), 100_000)).catch((error) => error);
    expect(failure).toBeInstanceOf(HttpError);
    expect(`${failure.message} ${failure.stack} ${failure.url}`).not.toMatch(/cret|hidden/);
    await source.close();
  });

  it('is never misread, even if the server sends something else', async () => {
    const lies = [
      { 'content-range': 'bytes 5-10/300000' },
      { 'content-range': `bytes 100000-100009/300001` },
      { 'content-range': 'bytes 100000-900000/300000' },
      { 'content-range': 'nonsense' },
    ];
    for (const headers of lies) {
      const server = await serve(sample, {
        instead: (_, response, count) => {
          if (count > 1) response.writeHead(206, headers).end('0123456789');
          return count > 1;
        },
      });
      const source = await openHttp(server.url);
      await expect(source.read(new Uint8Array(10), 100_000)).rejects.toThrow(HttpError);
      await source.close();
    }
  });

  it('is read forward if the server does not say which range it sends', async () => {
    const server = await serve(sample, {
      instead: (request, response) => {
        if (request.headers.range === undefined) return false;
        response.writeHead(206).end('0123456789');
        return true;
      },
    });
    const source = await openHttp(server.url);
    expect(source.size).toBeUndefined();
    expect(isEqual(await readAll(source), sample)).toBe(true);
    await source.close();
  });

  it('reports an unreachable server', async () => {
    const server = await serve(sample);
    await server.close();
    servers.pop();
    await expect(openHttp(server.url)).rejects.toThrow(/cannot be reached: .*at offset 0/);
    await expect(openHttp('http://')).rejects.toThrow(TypeError);
  });
});

/** One block of 64 MiB with these pages. */
function largeMappedRam(present: number[]): Uint8Array {
  const size = 64 << 20;
  const head = join(
    header,
    configuration('none', capabilities('mapped-ram')),
    [1],
    u32(1),
    counted('ram'),
    u32(0),
    u32(4),
    u64(size + 4),
    counted('ram'),
    u64(size),
  );
  const bytes = new Uint8Array((1 << 20) + size + 200);
  bytes.set(join(head, u32(1), u64(KIB4), u64(head.length + 28), u64(1 << 20)));
  for (const page of present) {
    const at = head.length + 28 + (page >> 3);
    bytes[at] = (bytes[at] as number) | (1 << (page & 7));
    bytes.fill(page, (1 << 20) + page * KIB4, (1 << 20) + (page + 1) * KIB4);
  }
  const tail = join(EOS, footer(1), end(1, EOS), EOF, vmdescription({ page_size: KIB4, devices: [] }));
  bytes.set(tail, (1 << 20) + size);
  return bytes.subarray(0, (1 << 20) + size + tail.length);
}

describe('a migration on a web server', () => {
  const hash = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

  it.each(loadFixtures().filter(({ name, channels }) => /^none/.test(name) && channels.length === 0))(
    '$name has the RAM of its guest',
    async (fixture) => {
      for (const ranges of [true, false]) {
        const server = await serve(fixture.bytes, { ranges });
        const file = await open(`${server.url},offset=${fixture.offset}`);
        const store = new MappedRamStore(new MemoryFile(), file.pageSlots);
        const { inspection } = await inspect(file, { sink: store });
        expect(inspection.complete).toBe(true);
        const [block] = store.blocks;
        const content = new Uint8Array(block?.usedLength ?? 0);
        await store.read(block!, 0, content);
        expect(hash(content)).toBe(fixture.truth[0]?.sha256);
        await file.close();
      }
    },
  );

  it('is found in a libvirt image, and in a snapshot named after #', async () => {
    const image = await serve(loadContainerFixture('libvirt-gzip').bytes);
    const saved = await open(image.url as `http://${string}`);
    expect((await verify(saved)).ok).toBe(true);
    await saved.close();
    const disk = await serve(loadContainerFixture('qcow2-v3-10.0').bytes);
    const snapshot = await open(`${disk.url}#second`);
    expect(snapshot.source.name).toBe(`${disk.url}#second`);
    expect((await verify(snapshot)).ok).toBe(true);
    await snapshot.close();
    await expect(open(disk.url)).rejects.toThrow(/it has "first", "second"/);
  });

  it('in mapped-ram form requests only the bytes that it needs', async () => {
    // 64 MiB of RAM with two pages.
    const bytes = largeMappedRam([5, 16_001]);
    const server = await serve(bytes);
    const file = await open(server.url);
    const { inspection } = await inspect(file);
    expect(inspection.ram.blocks[0]?.pages.normal).toBe(2);
    const inspected = server.sent;
    expect(inspected).toBeLessThan(4 << 20);
    const ram = await openRamContent(file, { makeScratch: () => new MemoryFile() });
    const page = new Uint8Array(4096);
    await ram.read(ram.blocks[0]!, 16_001, page);
    expect(page.some((byte) => byte !== 0)).toBe(true);
    await ram.close();
    expect(server.sent).toBeLessThan(8 << 20);
    expect(bytes.length).toBeGreaterThan(64 << 20);
    await file.close();
  });
});
