/** The engine behind the page reports the same about files in a real Chromium as in Node. */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MemoryFile, MigrationError, open } from '../../src/index.ts';
import type { PartLists } from '../../src/read/parts.ts';
import { readDevices } from '../../src/store/devices.ts';
import { openRamContent, readBytes } from '../../src/store/ram-content.ts';
import { diff } from '../../src/tasks/diff/diff.ts';
import { inspect } from '../../src/tasks/inspect/inspect.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import { loadContainerFixtures } from '../container-fixtures.ts';
import { type Fixture, loadFixtures, loadPartedFixtures, type PartedFixture } from '../fixture-files.ts';
import { hangGuardMs, someOf } from '../limits.ts';
import { findChromium, launchFlags } from './chromium.ts';
import { countReads } from './count-reads.ts';
import { type PageServer, servePage } from './server.ts';
import { bundleViewer } from './viewer-bundle.ts';
import { writeSparse, writeTwoPasses } from './viewer-files.ts';
import type { ViewerPage, Wanted } from './viewer-page.ts';

const executablePath = findChromium();
const fixtures = loadFixtures();
const parted = loadPartedFixtures();
const containers = loadContainerFixtures();
const html =
  '<!doctype html><meta charset="utf-8"><title>viewer</title><input type="file" multiple><script type="module" src="/viewer-page.js"></script>';
/** RAM of the stream with two passes, more than may be kept in memory. */
const twoPassBytes = 136 << 20;

const makeScratch = () => new MemoryFile();
const plain = (value: unknown) => JSON.parse(JSON.stringify(value));
const named = (name: string, bytes: Uint8Array) => new File([bytes.slice()], name);

interface Named {
  name: string;
  bytes: Uint8Array;
}

/** Computes in Node what the page should report about a file. */
async function examine(
  { name, bytes }: Named,
  where: { offset?: number; snapshot?: string },
  { channels = [], resumeOf = [], preempt = [], returnPath = [] }: Partial<PartLists<Named>> = {},
) {
  const main = named(name, bytes);
  const filesOf = (list: readonly Named[]) => list.map((each) => named(each.name, each.bytes));
  const parts = {
    channels: filesOf(channels),
    resumeOf: filesOf(resumeOf),
    preempt: filesOf(preempt),
    returnPath: filesOf(returnPath),
  };
  const reopen = () => open(main, { ...where, ...parts });
  try {
    // The page reads the pages, except those of a mapped-ram file. So it also knows how many bytes channels decompress to.
    const read = await reopen();
    const sink = { take: () => {} };
    const { inspection } = await inspect(read, read.format === 'mapped-ram' && read.isSeekable ? {} : { sink });
    const verification = await verify(await reopen());
    const devices = (await readDevices(await reopen())).devices.map(({ name, instanceId }) => `${name}#${instanceId}`);
    const digests = inspection.ram.blocks.length > 0 ? await hashRam(await reopen()) : {};
    return plain({ inspection, verification, digests, devices });
  } catch (error) {
    return { failure: failureOf(error) };
  }
}

async function hashRam(file: Awaited<ReturnType<typeof open>>): Promise<object> {
  const digests: Record<string, string> = {};
  try {
    const ram = await openRamContent(file, { makeScratch });
    for (const block of ram.blocks) {
      const hash = createHash('sha256');
      for await (const bytes of readBytes(ram, block)) hash.update(bytes);
      digests[block.idstr] = hash.digest('hex');
    }
    return digests;
  } catch (error) {
    return { failure: failureOf(error) };
  }
}

function failureOf(error: unknown) {
  if (!(error instanceof MigrationError)) throw error;
  const { message, code, place, detail } = error;
  return plain({ kind: 'bad-input', message, code, place, detail });
}

const filesOf = ({ name, bytes, channels }: Pick<Fixture, 'name' | 'bytes' | 'channels'>) => [
  { name, bytes },
  ...channels.map((channel, i) => ({ name: `${name}.channel-${i}`, bytes: channel })),
];

/** The files of a migration in several files, by name, with their roles. */
function partsOf({ path, bytes, resumeOf, preempt, returnPath, paths }: PartedFixture) {
  const named = (part: 'resumeOf' | 'preempt' | 'returnPath', list: Uint8Array[]) =>
    list.map((each, i) => ({ name: basename(paths[part][i] as string), bytes: each }));
  return {
    main: { name: basename(path), bytes },
    resumeOf: named('resumeOf', resumeOf),
    preempt: named('preempt', preempt),
    returnPath: named('returnPath', returnPath),
  };
}

const fixtureNamed = (name: string) => fixtures.find((fixture) => fixture.name === name) as Fixture;

describe.skipIf(executablePath === undefined)('the viewer in Chromium', () => {
  let directory: string;
  let server: PageServer;
  let isolated: PageServer;
  /** Its worker notes what it reads. */
  let counting: PageServer;
  let browser: BrowserContext;
  let page: Page;
  let twoPassHash: string;
  const complaints: string[] = [];

  const load = async (origin: string) => {
    const opened = await browser.newPage();
    opened.setDefaultTimeout(hangGuardMs);
    opened.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
    });
    opened.on('pageerror', (error) => complaints.push(String(error)));
    await opened.goto(origin);
    await opened.waitForFunction('globalThis.viewerPage !== undefined');
    return opened;
  };

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'vmferry-browser-'));
    const sparse = join(directory, 'sparse.mapped-ram');
    const twoPasses = join(directory, 'two-passes.migration');
    await writeSparse(sparse);
    twoPassHash = await writeTwoPasses(twoPasses, twoPassBytes / 4096);
    await pipeline(createReadStream(twoPasses), createGzip({ level: 1 }), createWriteStream(`${twoPasses}.gz`));
    const captures = new Map(
      fixtures.flatMap((each) => filesOf(each).map(({ name, bytes }) => [name, bytes] as const)),
    );
    for (const { name, bytes } of containers) captures.set(name, bytes);
    for (const { main, resumeOf, preempt, returnPath } of parted.map(partsOf)) {
      for (const { name, bytes } of [main, ...resumeOf, ...preempt, ...returnPath]) captures.set(name, bytes);
    }
    for (const [name, bytes] of cutFixtures()) captures.set(name, bytes);
    const scripts = await bundleViewer();
    const files = new Map([
      ['sparse.mapped-ram', sparse],
      ['two-passes.migration', twoPasses],
    ]);
    server = await servePage(captures, scripts, { html, files });
    isolated = await servePage(captures, scripts, { html, files, isolated: true });
    const worker = `${countReads};${scripts.get('/viewer-worker.js')}`;
    counting = await servePage(captures, new Map([...scripts, ['/viewer-worker.js', worker]]), { html, files });
    const flags = [...launchFlags, '--host-resolver-rules=MAP plain.test 127.0.0.1'];
    // Uses a separate profile. In private windows the private disk is in the memory of another process, and slow.
    const profile = join(directory, 'profile');
    browser = await chromium.launchPersistentContext(profile, {
      executablePath: executablePath as string,
      args: flags,
    });
    page = await load(server.origin);
  });

  afterAll(async () => {
    await browser?.close();
    await server?.close();
    await isolated?.close();
    await counting?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Calls a function of the test page. */
  const ask = <Name extends keyof ViewerPage>(
    name: Name,
    ...args: Parameters<ViewerPage[Name]>
  ): Promise<Awaited<ReturnType<ViewerPage[Name]>>> => askOf(page, name, ...args);
  const askOf = <Name extends keyof ViewerPage>(where: Page, name: Name, ...args: Parameters<ViewerPage[Name]>) =>
    where.evaluate(`globalThis.viewerPage.${name}(...${JSON.stringify(args)})`) as Promise<
      Awaited<ReturnType<ViewerPage[Name]>>
    >;
  const opened = async (wanted: Wanted, where?: { offset?: number }) => {
    const file = await ask('open', wanted, where);
    if ('failure' in file) throw new Error(file.failure.message);
    return file;
  };

  it.each(someOf(fixtures, 3))('$name gives the same as in Node', async (fixture) => {
    const { offset, truth } = fixture;
    const files = filesOf(fixture);
    // The files may be picked in any order.
    const found = await ask('examine', { captures: files.map(({ name }) => name).reverse() }, { offset });
    const [main, ...channels] = files;
    expect(found).toEqual(await examine(main as Named, { offset }, { channels }));
    expect((found as { digests: unknown }).digests).toEqual(
      Object.fromEntries(truth.map(({ idstr, sha256 }) => [idstr, sha256])),
    );
  });

  it.each(parted)('$name, in several files, gives the same as in Node', async (fixture) => {
    const { main, ...parts } = partsOf(fixture);
    const { resumeOf, preempt, returnPath } = parts;
    const all = [...returnPath, ...preempt, main, ...resumeOf];
    const captures = all.map(({ name }) => name);
    const asStream = resumeOf.length === 0 ? main : resumeOf[0];
    const roles = all.map((each) => {
      if (returnPath.includes(each)) return 'return-path';
      if (preempt.includes(each)) return 'preempt';
      return each === asStream ? 'stream' : 'recovery';
    });
    // The page asks about anything that the bytes do not show.
    const isClear = preempt.length <= 1;
    const guessed = await ask('examine', { captures: [...captures].reverse() });
    if (!isClear) expect(guessed).toMatchObject({ failure: { kind: 'unclear-parts', parts: expect.any(Array) } });
    const found = isClear ? guessed : await ask('examine', { captures, roles });
    expect(found).toEqual(await examine(main, {}, parts));
    expect(found).toMatchObject({
      verification: { ok: true },
      digests: Object.fromEntries(fixture.truth.map(({ idstr, sha256 }) => [idstr, sha256])),
    });
  });

  it('shows which of several files contains a device', async () => {
    const { main, resumeOf } = partsOf(parted.find(({ name }) => name === 'pc-recovery-10.0') as PartedFixture);
    const { id } = await opened({ captures: [main.name, resumeOf[0]?.name as string] });
    const { result } = await ask('call', 'devices', { file: id, path: [] });
    const { nodes } = result as never as { nodes: { source?: string; offset: number; length: number }[] };
    expect(nodes.length).toBeGreaterThan(10);
    for (const { source, offset, length } of nodes) {
      expect(source).toBe(resumeOf[0]?.name);
      const { result } = await ask('call', 'bytes', {
        file: id,
        place: { source, offset },
        length: Math.min(length, 64),
      });
      const expected = resumeOf[0]?.bytes.subarray(offset, offset + Math.min(length, 64)) as Uint8Array;
      expect((result as { bytes: number[] }).bytes).toEqual([...expected]);
    }
    await ask('close', id);
  });

  it.each(containers)(
    '$name gives the same as in Node, or reports what is missing',
    async ({ name, bytes, streams }) => {
      for (const { snapshot, truth } of streams) {
        const where = snapshot === undefined ? {} : { snapshot };
        const found = await ask('examine', { captures: [name] }, where);
        if (/bzip2|lzop/.test(name)) {
          expect(found).toMatchObject({
            failure: { kind: 'no-decoder', message: expect.stringContaining('decompressor') },
          });
          continue;
        }
        expect(found).toEqual(await examine({ name, bytes }, where));
        expect(found).toMatchObject({ digests: Object.fromEntries(truth.map(({ idstr, sha256 }) => [idstr, sha256])) });
      }
    },
  );

  it('lists the snapshots of a qcow2 image if none is named', async () => {
    const found = await ask('open', { captures: ['qcow2-v3-10.0'] });
    expect(found).toMatchObject({ failure: { kind: 'no-snapshot', snapshots: expect.any(Array) } });
  });

  it.each([...cutFixtures().keys()])('%s gives the same error and place as in Node', async (name) => {
    const bytes = cutFixtures().get(name) as Uint8Array;
    const found = await ask('examine', { captures: [name] });
    expect(found).toEqual(await examine({ name, bytes }, {}));
    expect(JSON.stringify(found)).toMatch(/"code":"(truncated|not-a-migration-stream|bad-compression)"/);
  });

  const sparseSides: [string, Wanted][] = [
    ['a file', { picked: true }],
    ['a URL, in ranges', { url: '/files/sparse.mapped-ram' }],
  ];
  it.each(sparseSides)('a sparse file of 2 GiB opens as %s', async (_, wanted) => {
    await page.setInputFiles('input', join(directory, 'sparse.mapped-ram'));
    const { id, blocks, inspection, name } = await opened(wanted);
    const pages = 2 ** 19;
    expect(name).toBe('sparse.mapped-ram');
    expect(inspection.ram.blocks[0]?.pages).toMatchObject({ normal: 3, zero: pages - 3 });
    expect(blocks[0]).toMatchObject({ pages, layers: ['state', 'entropy', 'difference'] });
    const { result } = await ask('call', 'map', {
      file: id,
      block: 0,
      layer: 'state',
      first: 0,
      pagesPerCell: pages / 4,
      cells: 4,
    });
    const [zero, data] = [1, 2];
    const { counts } = result as { counts: number[] };
    expect([0, 1, 2, 3].map((cell) => [counts[cell * 6 + zero], counts[cell * 6 + data]])).toEqual([
      [pages / 4 - 2, 2],
      [pages / 4, 0],
      [pages / 4, 0],
      [pages / 4 - 1, 1],
    ]);
    const last = await ask('call', 'read', { file: id, block: 0, offset: 2 ** 31 - 4, length: 100 });
    expect((last.result as { bytes: number[] }).bytes).toEqual([
      ...new Uint8Array(Uint32Array.of(Math.imul((pages - 1) * 1024 + 1024, 2654435761)).buffer),
    ]);
    await ask('call', 'prepare', { file: id, block: 0, layer: 'entropy' });
    const entropy = await ask('call', 'map', {
      file: id,
      block: 0,
      layer: 'entropy',
      first: 0,
      pagesPerCell: 1,
      cells: 3,
    });
    const { values } = entropy.result as { values: number[] };
    expect(values[0]).toBeGreaterThan(240);
    expect(values[2]).toBe(255);
    await ask('close', id);
  });

  it.each([
    'two-passes.migration',
    'pc-plain-10.0',
    'pc-xbzrle-10.0',
    'pc-multifd-none-zero-multifd-10.0',
    'pc-mapped-ram-multifd-10.0',
  ])('%s is read once, and shows its map meanwhile', async (name) => {
    const counted = await load(counting.origin);
    const fixture = fixtures.find((each) => each.name === name);
    if (fixture === undefined) await counted.setInputFiles('input', join(directory, name));
    const wanted =
      fixture === undefined ? { picked: true as const } : { captures: filesOf(fixture).map(({ name }) => name) };
    const shown = await askOf(counted, 'openAndShow', wanted);
    if ('failure' in shown) throw new Error(shown.failure.message);
    expect(shown).toMatchObject({
      isVerified: true,
      ok: true,
      part: { blocks: shown.blocks.map(({ idstr }) => ({ idstr })) },
    });
    // The number of absent pages falls while the file is read.
    expect(shown.absent).toEqual([...shown.absent].sort((a, b) => b - a));
    const reads = (await askOf(counted, 'reads')).sort(([a, from], [b, to]) => (a < b ? -1 : a > b ? 1 : from - to));
    const twice = reads.filter(([file, start], i) => reads[i - 1]?.[0] === file && start < (reads[i - 1]?.[2] ?? 0));
    expect(twice).toEqual([]);
    if (name === 'two-passes.migration') {
      const sum = reads.reduce((total, [, start, end]) => total + end - start, 0);
      expect(sum).toBe(statSync(join(directory, name)).size);
    }
    await counted.close();
  });

  it('a stream with deltas is read in place', async () => {
    await page.setInputFiles('input', join(directory, 'two-passes.migration'));
    const { id, blocks, inspection } = await opened({ picked: true });
    expect(inspection.ram.passes).toBe(2);
    expect(await ask('hashBlocks', id, blocks)).toEqual({ ram: twoPassHash });
    expect(await ask('listScratch')).toEqual([]);
    await ask('close', id);
  });

  it('a compressed stream that exceeds the memory limit spills to the private disk, and leaves nothing there', async () => {
    await page.setInputFiles('input', join(directory, 'two-passes.migration.gz'));
    const { id, blocks } = await opened({ picked: true });
    expect(await ask('about')).toMatchObject({ scratch: 'disk', helpers: 0 });
    expect(await ask('hashBlocks', id, blocks)).toEqual({ ram: twoPassHash });
    expect(await ask('listScratch')).toHaveLength(1);
    const map = await ask('call', 'map', { file: id, block: 0, layer: 'pass', first: 0, pagesPerCell: 1, cells: 4 });
    expect(map.result).toMatchObject({ values: [2, 1, 1, 2] });
    await ask('close', id);
    expect(await ask('listScratch')).toEqual([]);
  });

  it('reports a missing disk for scratch files if memory is not enough', async () => {
    const elsewhere = await load(server.origin.replace('127.0.0.1', 'plain.test'));
    expect(await askOf(elsewhere, 'about')).toMatchObject({ scratch: 'memory', memoryLimit: 128 << 20 });
    await elsewhere.setInputFiles('input', join(directory, 'two-passes.migration.gz'));
    const file = await askOf(elsewhere, 'open', { picked: true });
    if ('failure' in file) throw new Error(file.failure.message);
    const read = { file: file.id, block: 0, offset: 0, length: 16 };
    const { result } = await askOf(elsewhere, 'call', 'read', read);
    expect(result).toMatchObject({ failure: { kind: 'no-space', message: expect.stringContaining('128 MiB') } });
    await elsewhere.close();
  });

  it('with shared memory several workers measure the same as one alone', async () => {
    const shared = await load(isolated.origin);
    expect((await askOf(shared, 'about')).helpers).toBeGreaterThan(0);
    const maps: unknown[] = [];
    for (const where of [page, shared]) {
      const file = await askOf(where, 'open', { captures: ['pc-xbzrle-10.0'] });
      if ('failure' in file) throw new Error(file.failure.message);
      const main = file.blocks.findIndex(({ idstr }) => idstr === 'pc.ram');
      const query = { file: file.id, block: main, layer: 'entropy' };
      await askOf(where, 'call', 'prepare', query);
      maps.push((await askOf(where, 'call', 'map', { ...query, first: 0, pagesPerCell: 16, cells: 256 })).result);
      await askOf(where, 'close', file.id);
    }
    expect(maps[0]).toEqual(maps[1]);
    expect(new Set((maps[0] as { values: number[] }).values).size).toBeGreaterThan(3);
    await shared.close();
  });

  it('shows the differences between two files, and where they are', async () => {
    const [before, after] = ['pc-plain-10.0', 'pc-xbzrle-10.0'].map(fixtureNamed) as [Fixture, Fixture];
    const base = await opened({ captures: [before.name] });
    const file = await opened({ captures: [after.name] });
    const { result } = await ask('call', 'diff', { base: base.id, file: file.id });
    const expected = await diff(
      await open(named(before.name, before.bytes)),
      await open(named(after.name, after.bytes)),
      { makeScratch },
    );
    const asText = JSON.stringify(expected, (_, each) =>
      each instanceof Uint8Array ? Array.from(each) : typeof each === 'bigint' ? `${each}n` : each,
    );
    expect(result).toEqual(JSON.parse(asText));
    const ram = expected.ram?.blocks.find(({ idstr }) => idstr === 'pc.ram');
    const block = file.blocks.find(({ idstr }) => idstr === 'pc.ram');
    const query = { file: file.id, block: block?.index, layer: 'difference', base: base.id };
    const cells = { first: 0, pagesPerCell: block?.pages, cells: 1 };
    const { counts } = (await ask('call', 'map', { ...query, ...cells })).result as { counts: number[] };
    expect(counts.slice(0, 4)).toEqual([
      ram?.same,
      ram?.changes.changed,
      ram?.changes.becameZero,
      ram?.changes.becameData,
    ]);
    await ask('close', base.id);
    await ask('close', file.id);
  });

  it.each(['stream', 'mapped-ram'] as const)(
    'converts to a %s with the same content, and verifies it',
    async (format) => {
      const { name, truth } = fixtureNamed('pc-xbzrle-10.0');
      const { id } = await opened({ captures: [name] });
      const said = await ask('save', 'convert', { file: id, format, target: 'file', name: `as-${format}` });
      expect(said).toMatchObject({ name: `as-${format}`, verification: { ok: true, format } });
      const found = await ask('examine', { saved: `as-${format}` });
      expect(found).toMatchObject({
        verification: { ok: true },
        digests: Object.fromEntries(truth.map(({ idstr, sha256 }) => [idstr, sha256])),
      });
      const chosen = await ask('saveTo', 'convert', { file: id, format }, `chosen-${format}`);
      expect(chosen.size).toBe((said as { size: number }).size);
      expect(await ask('examine', { saved: `chosen-${format}` })).toMatchObject({
        digests: (found as { digests: object }).digests,
      });
      await ask('call', 'release', (said as { ticket: number }).ticket);
      await ask('close', id);
      expect((await ask('listScratch')).filter((path) => path.startsWith('/vmferry-scratch'))).toEqual([]);
    },
  );

  it('writes a block as a raw image', async () => {
    const { name, truth } = fixtureNamed('pc-plain-10.0');
    const { id, blocks } = await opened({ captures: [name] });
    const block = blocks.findIndex(({ idstr }) => idstr === 'pc.bios');
    const said = await ask('save', 'exportBlock', { file: id, block, target: 'file' });
    const { sha256, length } = truth.find(({ idstr }) => idstr === 'pc.bios') as Fixture['truth'][number];
    expect(said).toMatchObject({ sha256, size: length, name: 'pc.bios.raw' });
    await ask('call', 'release', (said as { ticket: number }).ticket);
    await ask('close', id);
  });

  it('finds the requested number of texts, bytes and expressions in RAM', async () => {
    const { id, blocks } = await opened({ captures: ['pc-plain-10.0'] });
    const search = async (query: object) =>
      (await ask('call', 'search', { file: id, ...query })) as never as {
        result: { matches: number; limited: boolean };
        parts: { block: number; offset: number; bytes: number[] }[][];
      };
    const text = await search({ kind: 'text', pattern: 'the ferry' });
    const matches = text.parts.flat();
    expect(matches.length).toBe(text.result.matches);
    expect(matches.length).toBeGreaterThan(0);
    for (const match of matches) expect(String.fromCharCode(...match.bytes)).toBe('the ferry');
    const hex = await search({ kind: 'hex', pattern: '74 68 65 20 66 65 72 72 79' });
    expect(hex.parts.flat()).toEqual(matches);
    expect((await search({ kind: 'regex', pattern: 'THE f[e]rry', ignoreCase: true })).parts.flat()).toEqual(matches);
    const one = await search({ kind: 'text', pattern: 'the ferry', limit: 1, block: matches[0]?.block });
    expect(one.result).toEqual({ matches: 1, limited: true });
    expect((await ask('call', 'search', { file: id, kind: 'hex', pattern: 'xyz' })).result).toMatchObject({
      failure: { kind: 'wrong-call' },
    });
    expect(blocks.length).toBeGreaterThan(0);
    await ask('close', id);
  });

  it('opens devices level by level, finds fields by name, and returns the JSON of the command line', async () => {
    const { id } = await opened({ captures: ['pc-plain-10.0'] });
    const { nodes } = (await ask('call', 'devices', { file: id, path: [] })).result as never as {
      nodes: { path: number[]; label: string; text: string; children: number; offset: number }[];
    };
    const cpu = nodes.find(({ label }) => label === 'cpu#0');
    expect(cpu?.text).toMatch(/CPL \d/);
    const found = (await ask('call', 'findDevices', { file: id, text: 'cpu_clock_offset' })).result as never as {
      node: { path: number[]; offset: number; text: string };
      labels: string[];
    }[];
    expect(found[0]?.labels).toEqual(['timer#0', 'cpu_clock_offset']);
    const children = await ask('call', 'devices', { file: id, path: found[0]?.node.path.slice(0, -1) });
    expect((children.result as never as { nodes: unknown[] }).nodes).toContainEqual(found[0]?.node);
    const device = found[0]?.node.path[0];
    const json = JSON.parse((await ask('call', 'deviceJson', { file: id, device })).result as string);
    expect(json).toMatchObject({ name: 'timer', state: { fields: expect.any(Array) } });
    // The bytes of a field are at the offset that its node states.
    const field = json.state.fields.find(({ name }: { name: string }) => name === 'cpu_clock_offset');
    const bytes = await ask('call', 'bytes', { file: id, place: { offset: field.offset }, length: field.length });
    const value = BigInt(`0x${Buffer.from((bytes.result as never as { bytes: number[] }).bytes).toString('hex')}`);
    expect(value).toBe(BigInt(field.value));
    await ask('close', id);
  });

  it('shows the place of a page in the file', async () => {
    const { bytes } = fixtureNamed('pc-plain-10.0');
    const { id, blocks } = await opened({ captures: ['pc-plain-10.0'] });
    const block = blocks.findIndex(({ idstr }) => idstr === 'pc.ram');
    const window = { first: 0, pagesPerCell: 1, cells: blocks[block]?.pages };
    const map = await ask('call', 'map', { file: id, block, layer: 'state', ...window });
    const { counts } = map.result as { counts: number[] };
    const page = counts.findIndex((count, i) => i % 6 === 2 && count === 1);
    expect(page).toBeGreaterThan(-1);
    const at = Math.floor(page / 6);
    const { result } = await ask('call', 'read', { file: id, block, offset: at * 4096, length: 4096 });
    const facts = (await ask('call', 'page', { file: id, block, page: at })).result as never as { fileOffset: number };
    expect(facts).toMatchObject({ page: at, state: 'data', pass: 1 });
    const content = (result as { bytes: number[] }).bytes;
    expect(content).toEqual(Array.from(bytes.subarray(facts.fileOffset, facts.fileOffset + 4096)));
    await ask('close', id);
  });

  it('a cancelled call ends as cancelled and leaves nothing', async () => {
    const scratchFiles = async () => (await ask('listScratch')).filter((path) => path.startsWith('/vmferry-scratch'));
    for (const name of ['two-passes.migration', 'two-passes.migration.gz']) {
      await page.setInputFiles('input', join(directory, name));
      expect(await ask('cancelOpening')).toEqual({ failure: { kind: 'cancelled', message: 'cancelled' } });
      expect(await scratchFiles()).toEqual([]);
    }
    await page.setInputFiles('input', join(directory, 'two-passes.migration'));
    const { id } = await opened({ picked: true });
    const query = { file: id, format: 'mapped-ram', target: 'file' };
    for (const [method, what] of [
      ['convert', query],
      ['prepare', { file: id, block: 0, layer: 'entropy' }],
    ] as const) {
      const { result, progress } = await ask('call', method, what, true);
      expect(result).toEqual({ failure: { kind: 'cancelled', message: 'cancelled' } });
      expect(progress).toBeGreaterThan(0);
      expect(await scratchFiles()).toEqual([]);
    }
    // A cancelled call does not affect the next one.
    expect((await ask('call', 'prepare', { file: id, block: 0, layer: 'entropy' })).result).toBe(null);
    expect((await ask('call', 'verify', { file: id })).result).toMatchObject({ ok: true });
    await ask('close', id);
  });

  it('removes the files of sessions that have ended, and no others', async () => {
    // Its compressed pages need a scratch file.
    const { id } = await opened({ captures: ['pc-compress-7.2'] });
    await ask('call', 'read', { file: id, block: 0, offset: 0, length: 16 });
    await ask('leaveScratch', 'crashed');
    const ofSession = (await ask('listScratch')).filter((path) => path.startsWith('/vmferry-scratch'));
    expect(ofSession).toHaveLength(2);
    const other = await load(server.origin);
    await askOf(other, 'about');
    const left = (await ask('listScratch')).filter((path) => path.startsWith('/vmferry-scratch'));
    expect(left).toEqual(ofSession.filter((path) => !path.includes('crashed')));
    await other.close();
    await ask('close', id);
  });

  it('writes nothing to the console', () => {
    expect(complaints).toEqual([]);
  });
});

/** Truncated files, and a file of another kind. */
function cutFixtures(): Map<string, Uint8Array> {
  const cut = (name: string, share: number) => {
    const { bytes } = fixtureNamed(name);
    return bytes.subarray(0, Math.floor(bytes.length * share));
  };
  const gzipped = containers.find(({ name }) => name === 'libvirt-gzip')?.bytes as Uint8Array;
  return new Map([
    ['cut-in-ram', cut('pc-plain-10.0', 0.3)],
    ['cut-in-devices', cut('pc-plain-10.0', 0.94)],
    ['cut-mapped-ram', cut('none-mapped-ram-10.0', 0.5)],
    ['cut-gzip', gzipped.subarray(0, Math.floor(gzipped.length / 2))],
    ['text', new TextEncoder().encode('no migration stream')],
  ]);
}
