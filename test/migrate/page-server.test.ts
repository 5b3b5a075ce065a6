/**
 * The page server: a VM at rest runs at a destination before its RAM is there. The destination is played by the test, or it is
 * our own. What a real QEMU does is in test/qemu/resume-serve.test.ts.
 */
import { describe, expect, it } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { connectStreams } from '../../src/io/web-connection.ts';
import { onlyGlobalState, withRunState } from '../../src/migrate/global-state.ts';
import { Incoming } from '../../src/migrate/incoming.ts';
import { formatOrder, parseOrder } from '../../src/migrate/page-order.ts';
import { servePages } from '../../src/migrate/page-server.ts';
import { receive } from '../../src/migrate/receive.ts';
import { serveFile } from '../../src/migrate/serve-file.ts';
import type { ServedGuest, ServeOptions } from '../../src/migrate/serve-options.ts';
import { diff, open } from '../../src/node.ts';
import type { WritableVm } from '../../src/vm/saved-vm.ts';
import { fixturePath } from '../fixture-files.ts';
import { PlainRam } from '../support/plain-ram.ts';
import { PostcopyTarget, type PostcopyTargetOptions } from '../support/postcopy-target.ts';
import { VirtualClock } from '../support/virtual-clock.ts';
import { MemoryListener } from './memory-listener.ts';

const pageBytes = 4096;
const pages = 2048;

/** A VM whose pages 0 to 1023 have data, as all pages from 2000 on. All others are zero. */
function makeVm(state: 'running' | 'paused' = 'running'): WritableVm & { ram: PlainRam } {
  const content = new Uint8Array(pages * pageBytes);
  for (let page = 0; page < pages; page++) {
    if (page >= 1024 && page < 2000) continue;
    content.fill((page % 251) + 1, page * pageBytes, (page + 1) * pageBytes);
  }
  const configuration = { machine: 'pc-i440fx-10.0', targetPageBits: 12, capabilities: [] };
  return { ram: new PlainRam(content, pageBytes), configuration, ...withRunState(onlyGlobalState(), state) };
}

interface Scene {
  target: PostcopyTarget;
  clock: VirtualClock;
  vm: ReturnType<typeof makeVm>;
  serving: Promise<ServedGuest>;
}

/** Begins to serve. By default the background has 1 MiB/s: 26 pages in each window of 100 ms. */
async function begin(options: ServeOptions = {}, of: PostcopyTargetOptions = {}): Promise<Scene> {
  const target = await PostcopyTarget.make(of);
  const clock = new VirtualClock();
  const vm = makeVm();
  const serving = serve(target, vm, { clock, maxPostcopyBandwidth: 1 << 20, ...options });
  serving.catch(() => {});
  return { target, clock, vm, serving };
}

const serve = async (target: PostcopyTarget, vm: WritableVm, options: ServeOptions): Promise<ServedGuest> =>
  servePages(vm, { main: await target.connect(), openChannel: target.connect }, options);

const pagesOf = (target: PostcopyTarget) => target.arrivals.map(({ page }) => page);

describe('a page server', () => {
  it('lets the guest run before any page is there, and sends only pages with data', async () => {
    let before = -1;
    const { target, vm, serving } = await begin({
      maxPostcopyBandwidth: 0,
      onRunning: () => {
        before = target.arrivals.length;
      },
    });
    const served = await serving;
    expect(before).toBe(0);
    expect(target.commands).toEqual([
      ...['OPEN_RETURN_PATH', 'PING', 'POSTCOPY_ADVISE', 'SWITCHOVER_START', 'POSTCOPY_RAM_DISCARD', 'PING'],
      ...['PACKAGED', 'POSTCOPY_LISTEN', 'PING', 'POSTCOPY_RUN', 'PING'],
    ]);
    expect(Buffer.compare(target.blocks.get('ram')!.bytes, vm.ram.content)).toBe(0);
    expect(target.arrivals.every(({ kind }) => kind === 'data')).toBe(true);
    expect(target.arrivals).toHaveLength(1024 + 48);
    expect(target.twice).toBe(0);
    expect(served).toMatchObject({
      ...{ isConfirmed: true, isPostcopy: true, progress: { status: 'completed' } },
      blocks: [{ dataPages: 1072, zeroPages: 976 }],
      statistics: { faults: 0, sentBytes: 1072 * pageBytes, resident: 1, remainingBytes: 0 },
    });
  });

  it('sends what is asked for at once, then its neighbours, then the rest in order', async () => {
    const { target, clock, serving } = await begin();
    await target.until(() => target.arrivals.length >= 26);
    const before = target.arrivals.length;
    const asked = clock.now();
    await target.ask('ram', 2010);
    await target.until(() => target.has('ram', 2010));
    expect(clock.now()).toBe(asked);
    expect(pagesOf(target)[before]).toBe(2010);
    const served = await serving;
    const order = pagesOf(target);
    expect(order.slice(before, before + 48)).toEqual([
      ...[2010, ...Array.from({ length: 37 }, (_, i) => 2011 + i)],
      ...Array.from({ length: 10 }, (_, i) => 2000 + i),
    ]);
    expect(order.slice(0, before)).toEqual(Array.from({ length: before }, (_, i) => i));
    expect(order.at(-1)).toBe(1023);
    expect(target.twice).toBe(0);
    expect(served.statistics).toMatchObject({ faults: 1, requestedBytes: pageBytes, latency: { max: 0, p99: 0 } });
    expect(served.recorded).toMatchObject([{ first: 2010, end: 2011 }]);
  });

  it('answers a request for a zero page, and for several pages', async () => {
    const { target, serving } = await begin();
    await target.until(() => target.status === 'running');
    await target.ask('ram', 1500);
    await target.ask('ram', 1999, 3);
    await target.until(() => target.has('ram', 1500) && target.has('ram', 2001));
    expect(target.arrivals.filter(({ kind }) => kind === 'zero').map(({ page }) => page)).toEqual([1500, 1999]);
    await serving;
    expect(target.twice).toBe(0);
  });

  it('holds the limit for the background', async () => {
    const { target, clock, serving } = await begin();
    await target.until(() => target.status === 'running');
    const start = clock.now();
    await serving;
    const rate = (1072 * pageBytes) / ((clock.now() - start) / 1000);
    expect(rate / (1 << 20)).toBeGreaterThan(0.9);
    expect(rate / (1 << 20)).toBeLessThan(1.1);
  });

  it('pushes in a recorded order first', async () => {
    const block = makeVm().ram.block;
    const text = formatOrder([
      { block, first: 2020, end: 2021 },
      { block, first: 700, end: 703 },
      { block, first: 1500, end: 1600 },
      { block, first: 703, end: 704 },
      { block, first: 5, end: 6 },
    ]);
    const { target, serving } = await begin({ order: parseOrder(text) });
    await serving;
    expect(pagesOf(target).slice(0, 8)).toEqual([2020, 700, 701, 702, 703, 5, 0, 1]);
    expect(target.twice).toBe(0);
  });

  it('sends a paused guest as a whole, because postcopy would start it', async () => {
    const target = await PostcopyTarget.make();
    const vm = makeVm('paused');
    const served = await serve(target, vm, {});
    expect(served.isPostcopy).toBe(false);
    const [block, ...others] = served.blocks;
    expect(block).toMatchObject({ block: { idstr: 'ram' }, dataPages: pages - 976, zeroPages: 976, absentPages: 0 });
    expect(others).toEqual([]);
    expect(target.commands).not.toContain('POSTCOPY_RUN');
    expect(Buffer.compare(target.blocks.get('ram')!.bytes, vm.ram.content)).toBe(0);
  });
});

describe('a preempt channel', () => {
  it.each([false, true])('carries what is asked for, opened first: %s', async (preemptFirst) => {
    const rules = { switchoverStart: false, multifdMarks: 'section', zeroPages: 'records' } as const;
    const { target, serving } = await begin({
      ...{ preempt: true, rules: { ...rules, preemptFirst, pagesAllocatedInSync: false } },
    });
    await target.until(() => target.arrivals.length >= 26);
    for (const page of [2010, 1500, 900]) {
      await target.ask('ram', page);
      await target.until(() => target.has('ram', page));
    }
    await serving;
    const urgent = target.arrivals.filter(({ line }) => line === 'preempt');
    expect(urgent.map(({ page, kind }) => [page, kind])).toEqual([
      ...[
        [2010, 'data'],
        [1500, 'zero'],
        [900, 'data'],
      ],
    ]);
    expect(target.twice).toBe(0);
  });
});

describe('a page server that is gone', () => {
  it.each([false, true])('is replaced by one that knows nothing, preempt %s', async (preempt) => {
    const { target, vm, clock, serving } = await begin({ preempt });
    await target.until(() => target.arrivals.length >= 100);
    await target.ask('ram', 1500);
    await target.until(() => target.has('ram', 1500));
    target.drop();
    await expect(serving).rejects.toMatchObject({ guest: 'split', next: expect.stringContaining('as a recovery') });
    await target.until(() => target.status === 'paused');
    const before = target.arrivals.length;
    const statuses: string[] = [];
    let isServed = false;
    const again = serve(target, makeVm(), {
      ...{ clock, preempt, recover: true, onProgress: ({ status }) => statuses.push(status) },
      onRunning: () => {
        isServed = true;
      },
    });
    await again;
    expect(isServed).toBe(true);
    expect([...new Set(statuses)]).toEqual(['setup', 'postcopy-recover', 'postcopy-active', 'completed']);
    expect(Buffer.compare(target.blocks.get('ram')!.bytes, vm.ram.content)).toBe(0);
    expect(target.twice).toBe(0);
    expect(target.arrivals.length - before).toBeLessThan(1000);
  });

  it('can be replaced again and again', async () => {
    const { target, vm, clock, serving } = await begin();
    let current = serving;
    for (let times = 1; times <= 20; times++) {
      await target.until(() => target.arrivals.length >= times * 26);
      target.drop();
      await expect(current).rejects.toMatchObject({ guest: 'split' });
      await target.until(() => target.status === 'paused');
      current = serve(target, makeVm(), { clock, maxPostcopyBandwidth: 1 << 20, recover: true });
      current.catch(() => {});
      await target.until(() => target.status === 'running');
    }
    await current;
    expect(Buffer.compare(target.blocks.get('ram')!.bytes, vm.ram.content)).toBe(0);
    expect(target.twice).toBe(0);
  });

  it('leaves the guest where it is if nobody is there to be served', async () => {
    const file = await open(fixturePath('none-plain-10.0.bin'));
    const connect = () => Promise.reject(new Error('Failed to connect'));
    const options = { makeScratch: () => new MemoryFile('scratch') };
    await expect(serveFile(file, connect, { ...options, recover: true })).rejects.toMatchObject({ guest: 'split' });
    await expect(serveFile(file, connect, options)).rejects.toThrow('Failed to connect');
    await file.close();
  });
});

describe('a target that fails', () => {
  it('before it has taken what precedes the package leaves the guest in its file', async () => {
    const { serving } = await begin(
      {},
      {
        onCommand: ({ name }) => {
          if (name === 'POSTCOPY_ADVISE') throw new Error('userfaultfd not available');
        },
      },
    );
    await expect(serving).rejects.toMatchObject({
      guest: 'source',
      next: expect.stringContaining('let QEMU map the file'),
    });
  });

  it('is given up if it is silent', async () => {
    const silent = new Promise<void>(() => {});
    const { serving } = await begin(
      { idleTimeoutMs: 5000 },
      { onCommand: ({ name }) => (name === 'POSTCOPY_ADVISE' ? silent : undefined) },
    );
    await expect(serving).rejects.toMatchObject({ guest: 'source', message: 'the peer was silent for 5 s' });
  });

  it('ends the serving with the reason of the signal, and says that the guest is split', async () => {
    const controller = new AbortController();
    const { target, serving } = await begin({ signal: controller.signal });
    await target.until(() => target.arrivals.length > 0);
    controller.abort(new Error('enough'));
    await expect(serving).rejects.toMatchObject({ guest: 'split', message: 'enough' });
    await target.until(() => target.status === 'paused');
  });
});

describe('our own destination', () => {
  it.each([false, true])('gets every page, preempt %s', async (preempt) => {
    const listener = new MemoryListener();
    const output = new MemoryFile('OUT');
    const target = { file: output, commit: async () => {} };
    const receiving = receive(new Incoming(listener), target, { codecs: new NodeCodecs() });
    await using file = await open(fixturePath('pc-xbzrle-10.0.bin'));
    const makeScratch = () => new MemoryFile('scratch');
    const served = await serveFile(file, async () => listener.connect(), { makeScratch, preempt });
    const received = await receiving;
    expect([served.isConfirmed, received.confirmed, received.found.postcopy]).toEqual([true, true, true]);
    await using before = await open(fixturePath('pc-xbzrle-10.0.bin'));
    await using after = await open(output);
    const { ram, devices } = await diff(before, after, { makeScratch });
    expect(ram?.blocks.map(({ pages: all, same }) => all - same)).toEqual(ram?.blocks.map(() => 0));
    expect(devices).toMatchObject({ changed: [], removed: [], added: [] });
  });

  it('is reached over a MessageChannel', async () => {
    const { port1, port2 } = new MessageChannel();
    const output = new MemoryFile('OUT');
    const listener = { uri: 'port', accept: once(overPort(port2)), close: async () => {} };
    const target = { file: output, commit: async () => {} };
    const receiving = receive(new Incoming(listener), target, { codecs: new NodeCodecs() });
    const vm = makeVm();
    const { isConfirmed } = await servePages(vm, { main: overPort(port1) });
    const { confirmed } = await receiving;
    expect([isConfirmed, confirmed]).toEqual([true, true]);
    port1.close();
  });
});

/** The listener of one connection. */
function once(line: Connection): () => Promise<Connection | undefined> {
  const lines = [line];
  return async () => lines.shift() ?? new Promise<undefined>(() => {});
}

/** A line over a port: chunks are messages, and null is the end. */
function overPort(port: MessagePort): Connection {
  const readable = new ReadableStream<Uint8Array>({
    start(controller) {
      port.onmessage = ({ data }: MessageEvent<Uint8Array | null>) => {
        if (data === null) controller.close();
        else controller.enqueue(data);
      };
    },
  });
  const writable = new WritableStream<Uint8Array>({
    write: (chunk) => port.postMessage(chunk),
    close: () => port.postMessage(null),
  });
  return connectStreams({ readable, writable }, 'a port');
}
