/**
 * Makes test/fixtures: small captures of real QEMU, so that most tests need no QEMU. Runs only on request:
 *
 *   VMFERRY_MAKE_FIXTURES=1 npx vitest run --project 'qemu*' test/qemu/make-fixtures.test.ts
 *
 * The QEMU that made a capture also loads it. RAM contains only what our guest and our BIOS put there, which is
 * checked. Beside each NAME.bin, NAME.json says how it was made and what every RAM block must contain. Sparse files are
 * gzipped; `offset`, `length` and `sha256` describe the file before that.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { type Capture, type CaptureOptions, capture, versionOf } from './capture.ts';
import { type FillKind, guestPage } from './guest.ts';
import { loadCapture } from './load.ts';
import { writePage } from './machine.ts';
import { dumpMemory, save, startPhysical } from './physical-guest.ts';
import { lacksQemu } from './require.ts';
import { differences, findAddresses, readTruth, type Truth } from './truth.ts';
import type { Workload } from './workload.ts';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));

/** Mostly zero; twelve pages of text, twelve of one byte each, eight random ones, and the last page. */
const fill: NonNullable<CaptureOptions['fill']> = async ({ qemu, guest }, ours) => {
  const runs: [number, number, FillKind][] = [
    [0, 12, 'text'],
    [16, 12, 'same'],
    [32, 8, 'random'],
    [ours.count - 1, 1, 'random'],
  ];
  for (const [offset, count, kind] of runs) {
    const first = ours.first + offset;
    if (guest) await guest.fill({ first, count }, kind, 7);
    else for (let page = first; page < first + count; page++) writePage(qemu, page, guestPage(kind, page, 7));
  }
};

const workload: Workload = {
  passes: 5,
  ballast: 4,
  dirty: (guest, _pass, ours) => guest.dirty({ first: ours.first, count: 32 }, 'mixed', 1),
};

/** The guest runs at the destination and requests its ballast, while the rest arrives slowly. */
const postcopy = {
  machine: 'bare',
  ramMiB: 2,
  fill,
  route: 'socket',
  destinationRuns: true,
  workload: {
    ...{ passes: 1, ballast: 8, postcopy: true, goesOn: true },
    dirty: (guest, _pass, ours) => guest.dirty({ first: ours.first, count: 200 }, 'mixed', 1),
  },
  parameters: { 'max-postcopy-bandwidth': 100_000 },
} as const satisfies Omit<CaptureOptions, 'version'>;
const preempt = { capabilities: ['postcopy-ram', 'postcopy-preempt'] } as const;

const none = { machine: 'none', ramMiB: 4, fill } as const;
const bare = { machine: 'bare', ramMiB: 2, fill } as const;

const multifd = { ...bare, route: 'multifd', workload: { ...workload, passes: 2, ballast: 2 } } as const;
const channels = (count: number, compression: string, detection?: string) => ({
  'multifd-channels': count,
  'multifd-compression': compression,
  ...(detection === undefined ? {} : { 'zero-page-detection': detection }),
});

/**
 * Both versions with each compression; 10.0 also with each way of finding zero pages, and with an old machine type's.
 */
const multifdSets: Record<string, CaptureOptions> = {};
for (const compression of ['none', 'zlib', 'zstd']) {
  multifdSets[`pc-multifd-${compression}-7.2`] = {
    ...multifd,
    version: '7.2',
    parameters: channels(compression === 'zstd' ? 4 : 2, compression),
  };
  for (const detection of ['none', 'legacy', 'multifd']) {
    multifdSets[`pc-multifd-${compression}-zero-${detection}-10.0`] = {
      ...multifd,
      version: '10.0',
      parameters: channels(detection === 'multifd' ? 2 : 4, compression, detection),
    };
  }
}

const wanted: Record<string, CaptureOptions> = {
  ...multifdSets,
  'pc-multifd-old-machine-10.0': {
    ...multifd,
    version: '10.0',
    type: 'pc-i440fx-8.0',
    parameters: channels(2, 'zlib'),
  },
  'none-multifd-uuid-10.0': {
    ...none,
    version: '10.0',
    route: 'multifd',
    args: ['-uuid', '01234567-89ab-cdef-0123-456789abcdef'],
    capabilities: ['validate-uuid'],
    parameters: channels(2, 'zstd'),
  },
  'none-plain-7.2': { ...none, version: '7.2', route: 'exec' },
  'none-plain-10.0': { ...none, version: '10.0', route: 'file' },
  'pc-plain-10.0': { ...bare, version: '10.0', route: 'file', workload: { ...workload, passes: 3 } },
  'pc-no-vmdesc-10.0': { ...bare, version: '10.0', route: 'exec', properties: ['suppress-vmdesc=on'] },
  'pc-xbzrle-7.2': { ...bare, version: '7.2', route: 'exec', capabilities: ['xbzrle'], workload },
  'pc-xbzrle-10.0': { ...bare, version: '10.0', route: 'exec', capabilities: ['xbzrle'], workload },
  'pc-compress-7.2': {
    ...bare,
    version: '7.2',
    route: 'exec',
    capabilities: ['compress'],
    workload: { ...workload, passes: 3 },
  },
  'pc-background-snapshot-10.0': {
    ...bare,
    version: '10.0',
    route: 'exec',
    capabilities: ['background-snapshot'],
    workload: { ...workload, passes: 1 },
  },
  'pc-postcopy-10.0': {
    ...bare,
    version: '10.0',
    route: 'socket',
    capabilities: ['postcopy-ram'],
    workload: { ...workload, passes: 2, postcopy: true },
  },
  'pc-preempt-7.2': { ...postcopy, ...preempt, version: '7.2' },
  'pc-preempt-10.0': { ...postcopy, ...preempt, version: '10.0' },
  'pc-recovery-7.2': { ...postcopy, ...preempt, version: '7.2', breaks: 1 },
  'pc-recovery-10.0': { ...postcopy, capabilities: ['postcopy-ram'], version: '10.0', breaks: 1 },
  // Needs huge pages: echo 20 > /proc/sys/vm/nr_hugepages
  'pc-hugepages-10.0': {
    ...postcopy,
    version: '10.0',
    ramMiB: 4,
    capabilities: ['postcopy-ram'],
    properties: ['memory-backend=huge'],
    args: ['-object', 'memory-backend-memfd,id=huge,size=4M,hugetlb=on,hugetlbsize=2M'],
    destinationRuns: false,
    workload: { ...workload, passes: 1, postcopy: true },
  },
  'pc-dirty-bitmaps-10.0': {
    ...bare,
    version: '10.0',
    route: 'exec',
    capabilities: ['dirty-bitmaps'],
    args: ['-blockdev', 'null-co,node-name=disk,size=16777216'],
    fill: async (running, ours) => {
      await fill(running, ours);
      for (const [name, granularity] of [
        ['first', 65536],
        ['second', 4096],
      ] as const) {
        await running.qemu.execute('block-dirty-bitmap-add', { node: 'disk', name, granularity });
      }
      await running.qemu.execute('block-dirty-bitmap-disable', { node: 'disk', name: 'second' });
      await running.qemu.hmp('qemu-io disk "write 1M 200k"');
    },
  },
  'none-aarch64-10.0': { ...none, version: '10.0', target: 'aarch64', route: 'exec' },
  'none-ppc64-7.2': { ...none, version: '7.2', target: 'ppc64', route: 'exec' },
  'none-sparc64-10.0': { ...none, version: '10.0', target: 'sparc64', route: 'exec' },
  'none-mapped-ram-10.0': { ...none, version: '10.0', route: 'mapped-ram' },
  'none-mapped-ram-offset-10.0': { ...none, version: '10.0', route: 'mapped-ram', offset: 12345 },
  'pc-mapped-ram-multifd-10.0': {
    ...bare,
    version: '10.0',
    route: 'mapped-ram',
    capabilities: ['multifd'],
    parameters: { 'multifd-channels': 3 },
    workload: { ...workload, passes: 3 },
  },
};

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

describe.skipIf(!process.env.VMFERRY_MAKE_FIXTURES || lacksQemu('7.2', '10.0'))('fixtures', () => {
  test.each(Object.entries(wanted))('%s', async (name, options) => {
    const made = await capture(options);
    try {
      expectOnlyOurs(made);
      if (made.destinationTruth) expect(differences(made.destinationTruth, made.truth)).toEqual([]);
      else if (made.route !== 'multifd' && !made.parts) await expectLoads(made);
      if (made.usedCapabilities.includes('xbzrle')) expect(made.info['xbzrle-cache']!.bytes).toBeGreaterThan(0);
      writeFixture(name, made);
    } finally {
      made.dispose();
    }
  });
});

/** Several CPUs in long mode, RAM on both sides of the PCI hole; with a dump of the machine beside the stream. */
describe.skipIf(!process.env.VMFERRY_MAKE_FIXTURES || lacksQemu('10.0'))('fixtures', () => {
  test('q35-smp-10.0', async () => {
    const machine = 'q35,max-ram-below-4g=3M,acpi=off';
    await using qemu = await startPhysical({ version: '10.0', machine, ram: '4M', isLong: true, cpus: 3 });
    const truth = await readTruth(qemu, qemu.dir, await findAddresses(qemu));
    const core = readFileSync(await dumpMemory(qemu));
    const bytes = readFileSync(await save(qemu));
    expect([...truth.keys()].sort()).toEqual(['pc.bios', 'pc.ram', 'pc.rom']);
    expect(readFileSync(truth.get('pc.rom')!.path).every((byte) => byte === 0)).toBe(true);
    const about = {
      qemu: await versionOf(qemu),
      arguments: `-accel tcg -nodefaults -no-user-config -vga none -S -M ${machine} -m 4M -smp 3 -bios bios.bin`,
      route: 'exec',
      capabilities: [],
      parameters: {},
      file: write('q35-smp-10.0.bin', bytes),
      length: bytes.length,
      sha256: sha256(bytes),
      truth: describeTruth(truth),
      core: { length: core.length, sha256: sha256(core) },
    };
    write('q35-smp-10.0.json', Buffer.from(`${JSON.stringify(about, null, 2)}\n`));
  });
});

function write(file: string, bytes: Uint8Array): string {
  expect(bytes.length, file).toBeLessThan(1 << 20);
  mkdirSync(fixtures, { recursive: true });
  writeFileSync(`${fixtures}${file}`, bytes);
  return file;
}

const describeTruth = (truth: Truth) =>
  [...truth].map(([idstr, { path, length }]) => ({ idstr, length, sha256: sha256(readFileSync(path)) }));

function writeFixture(name: string, made: Capture): void {
  const isPacked = made.route === 'mapped-ram' || made.parameters['multifd-compression'] === 'none';
  const writeOne = (file: string, bytes: Uint8Array) =>
    isPacked ? write(`${file}.gz`, gzipSync(bytes, { level: 9 })) : write(file, bytes);
  const bytes = readFileSync(made.file);
  const file = writeOne(`${name}.bin`, bytes);
  const channels = made.multifdFiles.map((path, i) => {
    const content = readFileSync(path);
    return { file: writeOne(`${name}.channel-${i}.bin`, content), length: content.length, sha256: sha256(content) };
  });
  const copyAll = (kind: string, files: readonly string[] = []) =>
    files.map((path, i) => write(`${name}.${kind}-${i + 1}.bin`, readFileSync(path)));
  const about = {
    qemu: made.qemu,
    arguments: made.args.join(' '),
    route: made.route,
    capabilities: made.usedCapabilities,
    parameters: made.parameters,
    ...(made.offset === undefined ? {} : { offset: made.offset }),
    passes: made.info.ram!['dirty-sync-count'],
    ...(made.info['xbzrle-cache'] ? { 'xbzrle-cache': made.info['xbzrle-cache'] } : {}),
    file,
    length: bytes.length,
    sha256: sha256(bytes),
    ...(channels.length > 0 ? { channels } : {}),
    ...(made.parts
      ? {
          resumeOf: copyAll('broken', made.parts.resumeOf),
          preempt: copyAll('preempt', made.parts.preempt),
          returnPath: copyAll('return', made.parts.returnPath),
        }
      : {}),
    ...(made.channels && !made.parts
      ? { returnFile: write(`${name}.return.bin`, readFileSync(made.channels[0]!.returnFile)) }
      : {}),
    truth: describeTruth(made.truth),
  };
  write(`${name}.json`, Buffer.from(`${JSON.stringify(about, null, 2)}\n`));
}

/** Our guest writes only to our pages; the rest contains only its program and our BIOS. */
function expectOnlyOurs({ machine, truth }: Capture): void {
  if (machine === 'none') {
    expect([...truth.keys()]).toEqual(['ram']);
    return;
  }
  const ram = truth.has('huge') ? 'huge' : 'pc.ram';
  expect([...truth.keys()].sort()).toEqual([ram, 'pc.bios', 'pc.rom'].sort());
  const bytes = (idstr: string) => readFileSync(truth.get(idstr)!.path);
  const image = readFileSync(new URL('./guest/guest.bin', import.meta.url));
  expect(bytes('pc.rom').every((byte) => byte === 0)).toBe(true);
  expect(bytes('pc.bios').equals(Buffer.concat([Buffer.alloc(0xf000), image]))).toBe(true);
  const low = Buffer.alloc(0x100000);
  image.copy(low, 0x8000, 512, 512 + 3328);
  expect(bytes(ram).subarray(0, low.length).equals(low)).toBe(true);
}

async function expectLoads(made: Capture): Promise<void> {
  const loaded = await loadCapture(made);
  try {
    expect(differences(loaded.truth, made.truth)).toEqual([]);
  } finally {
    loaded.dispose();
  }
}
