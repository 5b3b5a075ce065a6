/** The built package gives the same results in a real Chromium as in Node. */
import { createHash } from 'node:crypto';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  appendTo,
  type ByteSink,
  convertToMultifd,
  extractBlocks,
  inspect,
  MemoryFile,
  type Openable,
  type OpenOptions,
  open,
  PortableCodecs,
  verify,
} from '../../src/index.ts';
import { connectionPair, Incoming, listenOn, receive, sendFile } from '../../src/migrate/index.ts';
import { loadFixtures } from '../fixture-files.ts';
import { hangGuardMs, someOf } from '../limits.ts';
import { findChromium, launchFlags } from './chromium.ts';
import { type PageServer, servePage } from './server.ts';

const fixtures = loadFixtures();
const executablePath = findChromium();

/** Computes in Node what `page.mjs` returns. */
async function examine(bytes: Uint8Array, options: OpenOptions<Openable>) {
  const file = await open(new Blob([bytes.slice()]), options);
  const { inspection } = await inspect(file);
  const verification = await verify(file);
  const files = new Map<string, MemoryFile>();
  const extracted = await extractBlocks(file, ({ idstr }) => {
    const image = new MemoryFile(idstr);
    files.set(idstr, image);
    return image;
  });
  const digests = Object.fromEntries(
    [...files].map(([idstr, image]) => {
      const content = new Uint8Array(image.size);
      image.read(content, 0);
      return [idstr, createHash('sha256').update(content).digest('hex')];
    }),
  );
  const { variant } = file.kernel;
  return { inspection, verification, extracted, digests, variant };
}

/** The digest of the file that arrives if a capture is sent in Node. */
async function sentInNode(bytes: Uint8Array): Promise<string> {
  const [here, there] = connectionPair();
  const output = new MemoryFile();
  const target = { file: output, commit: async () => {} };
  const receiving = receive(new Incoming(listenOn([there])), target, { codecs: new PortableCodecs() });
  await sendFile(await open(bytes), async () => here, { makeScratch: () => new MemoryFile() });
  await receiving;
  const content = new Uint8Array(output.size);
  output.read(content, 0);
  return createHash('sha256').update(content).digest('hex');
}

describe.skipIf(executablePath === undefined)('in Chromium', () => {
  let server: PageServer;
  let browser: Browser;
  let page: Page;
  const complaints: string[] = [];
  const strangers: string[] = [];

  beforeAll(async () => {
    const captures = new Map(fixtures.map(({ name, bytes }) => [name, bytes]));
    for (const { name, channels } of fixtures) {
      for (const [i, bytes] of channels.entries()) captures.set(`${name}.channel-${i}`, bytes);
    }
    server = await servePage(captures);
    browser = await chromium.launch({ executablePath: executablePath as string, args: launchFlags });
    page = await browser.newPage();
    page.setDefaultTimeout(hangGuardMs);
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('request', (request) => {
      if (!request.url().startsWith(server.origin)) strangers.push(request.url());
    });
    await page.goto(server.origin);
    await page.waitForFunction('globalThis.vmferryPage !== undefined');
  });

  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  /** Calls a function of `page.mjs`. */
  const inPage = (name: string, ...args: unknown[]): Promise<unknown> =>
    page.evaluate(`globalThis.vmferryPage.${name}(...${JSON.stringify(args)})`);

  it.each(someOf(fixtures, 3))('$name gives the same inspection, verification and RAM as in Node', async (fixture) => {
    const { name, bytes, channels, offset, truth } = fixture;
    const found = await inPage('examine', name, { offset, channelCount: channels.length });
    // Results from the page are JSON, so they contain no undefined.
    const ofChannels = channels.map((channel) => new Blob([channel.slice()]));
    const expected = JSON.parse(JSON.stringify(await examine(bytes, { offset, channels: ofChannels })));
    expect(found).toEqual(expected);
    const { digests } = found as { digests: Record<string, string> };
    expect(digests).toEqual(Object.fromEntries(truth.map(({ idstr, sha256 }) => [idstr, sha256])));
  });

  it('works with either build of the kernels', async () => {
    const { name, offset } =
      fixtures.find((fixture) => fixture.name.includes('xbzrle')) ?? (fixtures[0] as (typeof fixtures)[0]);
    const [simd, scalar] = (await Promise.all([
      inPage('examine', name, { offset, variant: 'simd' }),
      inPage('examine', name, { offset, variant: 'scalar' }),
    ])) as { variant: string }[];
    expect([simd?.variant, scalar?.variant]).toEqual(['simd', 'scalar']);
    expect({ ...simd, variant: '' }).toEqual({ ...scalar, variant: '' });
  });

  it.each(someOf(fixtures, 4))('$name is verified while it is fetched', async ({ name, bytes, offset }) => {
    const file = await open(new Blob([bytes.slice()]).stream(), { offset });
    expect(await inPage('verifyStream', name, { offset })).toEqual(JSON.parse(JSON.stringify(await verify(file))));
  });

  it('takes every form in which a page may have a capture', async () => {
    const { name, bytes } = fixtures.find((fixture) => fixture.name === 'pc-plain-10.0') as (typeof fixtures)[0];
    const file = await open(bytes);
    const { inspection } = await inspect(file);
    const expected = JSON.parse(JSON.stringify([true, true, inspection.ram.blocks]));
    const results = (await inPage('forms', name, {})) as Record<string, unknown>;
    expect(Object.keys(results).length).toBe(11);
    for (const [form, found] of Object.entries(results)) expect(found, form).toEqual(expected);
  });

  it.each(['none', 'zlib', 'zstd'] as const)('a multifd set is written as in Node (%s)', async (compression) => {
    const fixture = fixtures.find(({ name }) => name === 'pc-plain-10.0');
    const files = ['main', '0', '1'].map((name) => new MemoryFile(name));
    const [main, ...sinks] = files.map((file) => appendTo(file)) as [ByteSink, ...ByteSink[]];
    const file = await open(fixture?.bytes ?? new Uint8Array());
    const makeScratch = () => new MemoryFile();
    await (await convertToMultifd(file, main, sinks, { compression, makeScratch })).close();
    const digests = files.map((each) => {
      const bytes = new Uint8Array(each.size);
      each.read(bytes, 0);
      return createHash('sha256').update(bytes).digest('hex');
    });
    expect(await inPage('writeSet', 'pc-plain-10.0', compression)).toEqual(digests);
  });

  it.each([0, 2])('two pages migrate a guest over MessageChannels (%i multifd channels)', async (channels) => {
    const fixture = fixtures.find(({ name }) => name === 'pc-plain-10.0');
    const digest = await sentInNode(fixture?.bytes ?? new Uint8Array());
    expect(await inPage('sendToOtherPage', 'pc-plain-10.0', channels)).toEqual({
      isConfirmed: true,
      there: { confirmed: true, channels, digest },
    });
  });

  it('refuses other files with the same error', async () => {
    expect(await inPage('refusal', [...new TextEncoder().encode('no migration stream')])).toEqual({
      name: 'MigrationError',
      code: 'not-a-migration-stream',
      message: expect.stringContaining('expected a migration stream, got text'),
    });
  });

  it('requests nothing from other servers and writes nothing to the console', () => {
    expect(strangers).toEqual([]);
    expect(complaints).toEqual([]);
  });
});
