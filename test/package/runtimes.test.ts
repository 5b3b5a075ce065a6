/**
 * The built package in Deno and Bun: kernels over the caller's buffers, fixtures read completely, and RAM written in
 * every form and read again. The runtimes are npm packages. Without them the test is skipped and says so; with
 * VMFERRY_REQUIRE_RUNTIMES=1 it fails.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';

const dist = new URL('../../dist/', import.meta.url);
/** Multifd sets with compressed pages: one for each engine. */
const sets = ['pc-multifd-zlib-7.2', 'pc-multifd-zstd-zero-multifd-10.0'];
const script = `
import {
  appendTo, inspect, loadPageKernels as fromIndex, MemoryFile, open, openRamContent, pipeTo, RawRam, stoppedGuest,
  verify, writeGuest, writeMappedRam, writeMultifd, writeStream,
} from ${JSON.stringify(new URL('index.js', dist).href)};
import { loadPageKernels } from ${JSON.stringify(new URL('kernel.js', dist).href)};
import { readFileSync } from 'node:fs';

const results = [fromIndex === loadPageKernels];
for (const variant of ['simd', 'scalar']) {
  const kernels = await loadPageKernels({ variant });
  const old = new Uint8Array(4096);
  const next = old.slice();
  next[4095] = 1;
  const out = new Uint8Array(4096);
  const length = kernels.encodePage(old, next, out);
  const end = kernels.decodePage(out.subarray(0, length), old);
  const bitmap = new Uint8Array(1);
  const hashes = new Uint32Array(1);
  kernels.hashPages(new Uint8Array(4096), hashes);
  const zeroes = kernels.findZeroPages(new Uint8Array(8192), bitmap);
  results.push([kernels.variant, [...out.subarray(0, length)], end, old[4095], hashes[0], zeroes, bitmap[0]]);
}
const file = await open(new Uint8Array(readFileSync(${JSON.stringify(fixturePath('pc-xbzrle-10.0.bin'))})));
const { inspection } = await inspect(file);
results.push([inspection.machine, inspection.complete]);
for (const name of ${JSON.stringify(sets)}) {
  const read = (part) => new Uint8Array(readFileSync(${JSON.stringify(fixturePath(''))} + name + part));
  const set = await open(read('.bin'), { channels: [read('.channel-1.bin'), read('.channel-0.bin')] });
  const { ok, pageRecords } = await verify(set);
  results.push([name, ok, pageRecords > 500]);
}
const image = Uint8Array.from({ length: 2 << 20 }, (_, i) => (i % 40960 < 4096 ? i >> 12 : 0));
const vm = {
  configuration: { machine: 'none', capabilities: [] },
  ram: new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]),
};
const written = async (form, write) => {
  const [main, ...channels] = [new MemoryFile('main'), new MemoryFile('0'), new MemoryFile('1')];
  await write(main, channels);
  const file = await open(main, { channels: channels.filter(({ size }) => size > 0) });
  const { ok } = await verify(file);
  const ram = await openRamContent(file, { makeScratch: () => new MemoryFile() });
  const content = new Uint8Array(image.length);
  await ram.read(ram.blocks[0], 0, content);
  results.push([form, ok, content.every((byte, i) => byte === image[i])]);
};
await written('stream', (main) => writeStream(vm, appendTo(main)));
await written('guest', (main) => writeGuest(stoppedGuest(vm), appendTo(main), { xbzrle: { cacheSize: 1 << 20 } }));
await written('mapped-ram', (main) => writeMappedRam(vm, main));
for (const compression of ['none', 'zlib', 'zstd']) {
  await written(compression, (main, channels) => writeMultifd(vm, appendTo(main), channels.map((each) => appendTo(each)), { compression }));
}
await written('piped', async (main) => {
  const { readable, writable } = new TransformStream();
  const bytes = new Response(readable).arrayBuffer();
  await writeStream(vm, pipeTo(writable));
  await writable.close();
  main.write(new Uint8Array(await bytes), 0);
});
console.log(JSON.stringify(results));
`;
const each = (variant: string) => [variant, [0xff, 0x1f, 1, 1], 4096, 1, 0x8266bfde, 2, 3];
const wanted = [
  true,
  each('simd'),
  each('scalar'),
  ['pc-i440fx-10.0', true],
  ...sets.map((name) => [name, true, true]),
  ...['stream', 'guest', 'mapped-ram', 'none', 'zlib', 'zstd', 'piped'].map((form) => [form, true, true]),
];

/** The path of the command: in PATH, or in the folder that VMFERRY_RUNTIMES names, with the npm packages. */
function find(command: string): string | undefined {
  const installed = process.env.VMFERRY_RUNTIMES;
  const folders = (process.env.PATH ?? '').split(delimiter);
  if (installed !== undefined) folders.unshift(join(installed, 'node_modules/.bin'));
  return folders.map((folder) => join(folder, command)).find((path) => existsSync(path));
}

describe('the built package', () => {
  let directory: string;
  let path: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'vmferry-runtimes-'));
    path = join(directory, 'script.mjs');
    writeFileSync(path, script);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it.for<[command: string, args: string[]]>([
    ['node', []],
    ['deno', ['run', '--allow-read']],
    ['bun', ['run']],
  ])('works in %s', ([command, args], { skip }) => {
    const executable = command === 'node' ? process.execPath : find(command);
    if (executable === undefined) {
      const message = `${command} is not here: npm install --prefix DIR deno bun, and VMFERRY_RUNTIMES=DIR`;
      if (process.env.VMFERRY_REQUIRE_RUNTIMES === '1') throw new Error(message);
      console.warn(`skipped: ${message}`);
      skip(message);
      return;
    }
    const { stdout, stderr, status } = spawnSync(executable, [...args, path], { encoding: 'utf8', cwd: directory });
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toEqual(wanted);
  });
});
