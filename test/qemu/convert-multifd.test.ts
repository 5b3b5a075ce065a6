/**
 * Real QEMU loads the multifd sets that vmferry writes. The built command line converts captures of every encoding;
 * they are sent over one connection for the main stream and one per channel. RAM of the loaded machine equals the
 * source's, and its guest continues.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  type ByteSink,
  MemoryFile,
  NodeCodecs,
  PortableCodecs,
  RawRam,
  releaseRulesOf,
  writeMultifd,
} from '../../src/node.ts';
import { runCli } from '../run-cli.ts';
import { type Capture, type CaptureOptions, capture } from './capture.ts';
import { expectCounting } from './expect-counting.ts';
import { partOptions } from './expect-read.ts';
import { Guest, guestPage } from './guest.ts';
import { type LoadSetOptions, startFromSet, truthOf } from './load-set.ts';
import { type Machine, startDestination } from './machine.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { connectSinks, type SetFiles } from './send-set.ts';
import { differences } from './truth.ts';

type Compression = NonNullable<LoadSetOptions['compression']>;

interface Case {
  name: string;
  options: CaptureOptions;
  compression: Compression;
  channels: number;
  /** Further arguments of convert. */
  args?: string[];
  /** What loads it, unless that is a machine like the source. */
  into?: Machine;
  essential?: boolean;
}

const isFull = process.env.VMFERRY_QEMU === 'full';
const cases: Case[] = [];
const compressions = ['none', 'zlib', 'zstd'] as const;
const essentialOf = { '7.2': ['none zlib', 'pc zstd'], '10.0': ['none none', 'q35 zlib'] };
for (const version of qemuVersions) {
  for (const machine of ['none', 'pc', 'q35'] as const) {
    for (const [i, compression] of compressions.entries()) {
      cases.push({
        name: `${machine} ${version}, ${compression}`,
        options: { version, machine, route: 'exec' },
        ...{ compression, channels: 2 + i },
        // A stream of the machine none does not reveal its version.
        ...(machine === 'none' ? { args: ['--compat', version] } : {}),
        essential: essentialOf[version].includes(`${machine} ${compression}`),
      });
    }
  }
  const passes = { passes: 3 };
  cases.push(
    {
      name: `bare ${version}, from deltas`,
      options: { version, machine: 'bare', route: 'exec', workload: passes, capabilities: ['xbzrle'] },
      ...{ compression: 'zstd', channels: 1 },
    },
    {
      name: `bare ${version}, from a set`,
      options: { version, machine: 'bare', route: 'multifd', workload: passes, parameters: { 'multifd-channels': 4 } },
      ...{ compression: 'zlib', channels: 16 },
    },
    {
      name: `bare ${version}, from postcopy`,
      options: {
        ...{ version, machine: 'bare', route: 'socket', capabilities: ['postcopy-ram'] },
        workload: { passes: 2, postcopy: true },
      },
      ...{ compression: 'none', channels: 2 },
    },
    {
      name: `pc ${version}, a background snapshot`,
      options: { version, machine: 'pc', route: 'exec', capabilities: ['background-snapshot'], workload: passes },
      ...{ compression: 'zstd', channels: 2 },
    },
    {
      name: `none ${version}, a guest with a UUID`,
      options: { version, machine: 'none', route: 'exec', args: ['-uuid', '01234567-89ab-cdef-0123-456789abcdef'] },
      ...{ compression: 'none', channels: 2 },
      args: ['--compat', version, '--uuid', '01234567-89ab-cdef-0123-456789abcdef'],
      essential: version === '10.0',
    },
  );
}
const type = 'pc-i440fx-7.2';
cases.push(
  {
    name: 'bare, from 7.2 to 10.0',
    options: { version: '7.2', machine: 'bare', type, route: 'exec' },
    into: { version: '10.0', machine: 'bare', type },
    ...{ compression: 'zstd', channels: 3, essential: true },
  },
  {
    name: 'bare, from 10.0 to 7.2',
    options: { version: '10.0', machine: 'bare', type, route: 'exec' },
    into: { version: '7.2', machine: 'bare', type },
    ...{ compression: 'zstd', channels: 3, essential: true },
  },
  {
    name: 'none, from 10.0 to 7.2',
    options: { version: '10.0', machine: 'none', route: 'exec' },
    into: { version: '7.2', machine: 'none' },
    ...{ compression: 'zlib', channels: 2, args: ['--compat', '7.2'] },
  },
  {
    name: 'none, from 7.2 to 10.0',
    options: { version: '7.2', machine: 'none', route: 'exec' },
    into: { version: '10.0', machine: 'none' },
    ...{ compression: 'zlib', channels: 2, args: ['--compat', '10.0'] },
  },
  {
    name: 'none 10.0, with the rules of 9.0',
    options: { version: '10.0', machine: 'none', route: 'mapped-ram' },
    ...{ compression: 'zstd', channels: 2, args: ['--compat', '9.0'] },
  },
  {
    name: 'none sparc64 10.0, pages of 8 KiB',
    options: { version: '10.0', machine: 'none', target: 'sparc64', route: 'exec' },
    ...{ compression: 'zstd', channels: 2, args: ['--compat', '10.0'] },
  },
);
for (const type of ['pc-i440fx-8.0', 'pc-i440fx-8.1', 'pc-i440fx-8.2', 'pc-i440fx-9.0', 'pc-i440fx-9.2']) {
  cases.push({
    name: `bare 10.0 as ${type}`,
    options: { version: '10.0', machine: 'bare', type, route: 'exec' },
    ...{ compression: 'zlib', channels: 2 },
    essential: type === 'pc-i440fx-8.2',
  });
}
cases.push({
  name: 'bare 10.0, level 9',
  options: { version: '10.0', machine: 'bare', route: 'exec' },
  ...{ compression: 'zstd', channels: 2, args: ['--level', '9'] },
});

/** Converts a capture to a set beside it. */
async function convertToSet(made: Capture, { compression, channels, args = [] }: Omit<Case, 'name' | 'options'>) {
  const main = join(made.file, '../set');
  const { code, stderr, stdout } = await runCli([
    ...['convert', made.file, main, ...partOptions(made), '--to', 'multifd', '--json'],
    ...['--channels', String(channels), '--multifd-compression', compression, ...args],
  ]);
  expect([code, stderr]).toEqual([0, '']);
  const said = JSON.parse(stdout);
  expect(said).toMatchObject({ output: main, isVerified: true, length: statSync(main).size });
  return { main, channels: said.channels.map(({ path }: { path: string }) => path) } satisfies SetFiles;
}

const machineOf = ({
  fill: _,
  workload: __,
  parameters: ___,
  capabilities: ____,
  ...machine
}: CaptureOptions): Machine => machine;

describe.skipIf(lacksQemu('7.2', '10.0'))('QEMU loads the set that vmferry wrote', () => {
  test.each(cases.filter(({ essential }) => isFull || essential === true))('$name', async (each) => {
    const made = await capture(each.options);
    try {
      const set = await convertToSet(made, each);
      const machine = each.into ?? machineOf(each.options);
      const qemu = await startFromSet({ machine, set, compression: each.compression });
      let guest: Guest | undefined;
      try {
        expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
        if (machine.machine === 'none') return;
        guest = await Guest.resume(qemu);
        await guest.startDirtying({ first: 256, count: 16 }, 'few-bytes');
        await expectCounting(guest, 0);
        expect(await qemu.execute('query-status')).toMatchObject({ running: true });
      } finally {
        guest?.close();
        await qemu[Symbol.asyncDispose]();
      }
    } finally {
      made.dispose();
    }
  });
});

describe.skipIf(lacksQemu('10.0'))('a guest saved in the middle of its work', () => {
  test('continues counting from there', async () => {
    let counted = 0;
    const made = await capture({
      ...{ version: '10.0', machine: 'pc', route: 'exec' },
      fill: async ({ guest }, ours) => {
        await guest?.startDirtying({ first: ours.first, count: 64 }, 'few-bytes', 100);
        while (guest !== undefined && counted === 0) counted = await guest.count();
      },
    });
    try {
      const set = await convertToSet(made, { compression: 'zstd', channels: 2 });
      const qemu = await startFromSet({ machine: machineOf(made.options), set, compression: 'zstd' });
      const guest = await Guest.resume(qemu);
      try {
        expect(counted).toBeGreaterThan(0);
        await expectCounting(guest, counted);
      } finally {
        guest.close();
        await qemu[Symbol.asyncDispose]();
      }
    } finally {
      made.dispose();
    }
  });
});

/** Node before 22.15 has no zstd and uses the portable one. */
const written = qemuVersions.flatMap((version) => [
  { version, engine: "Node's codecs", codecs: new NodeCodecs() },
  { version, engine: 'the portable codecs, one zstd frame per packet', codecs: new PortableCodecs() },
]);

describe.skipIf(lacksQemu('7.2', '10.0'))("a VM written into QEMU's sockets", () => {
  test.each(written)('is loaded by QEMU $version, using $engine', async ({ version, codecs }) => {
    const image = new Uint8Array(16 << 20);
    for (let page = 3; page < 4096; page += page % 3 === 0 ? 1 : 2) {
      image.set(guestPage(page % 4 === 0 ? 'random' : 'stripes', page, 11), page * 4096);
    }
    const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
    const vm = { configuration: { machine: 'none', capabilities: [] }, ram };
    const qemu = await startDestination({ version, machine: 'none', ramMiB: 16 });
    try {
      const listen = join(qemu.dir, 'incoming');
      await qemu.setCapabilities(['multifd']);
      await qemu.setParameters({ 'multifd-channels': 3, 'multifd-compression': 'zstd' });
      await qemu.execute('migrate-incoming', { uri: `unix:${listen}` });
      const { sinks, end } = await connectSinks(listen, 3);
      const [main, ...channels] = sinks as [ByteSink, ...ByteSink[]];
      const rules = releaseRulesOf('none', version);
      const said = await writeMultifd(vm, main, channels, { compression: 'zstd', codecs, rules });
      end();
      // Several packets on each channel, because the second frame of a channel is where QEMU might fail.
      for (const { packets } of said.channels) expect(packets).toBeGreaterThan(3);
      await qemu.waitForMigration();
      const there = readFileSync((await truthOf(qemu)).get('ram')?.path ?? '');
      expect(Buffer.compare(there, image), 'RAM of the loaded machine').toBe(0);
    } finally {
      await qemu[Symbol.asyncDispose]();
    }
  });
});

describe.skipIf(!isFull || lacksQemu('7.2', '10.0'))('data besides RAM', () => {
  test.each(qemuVersions)('omitted shared memory: QEMU %s, which has it, loads the rest', async (version) => {
    const shared = Qemu.makeDir();
    const made = await capture({
      ...{ version, machine: 'pc', route: 'exec', capabilities: ['x-ignore-shared'] },
      properties: ['memory-backend=shm'],
      args: ['-object', `memory-backend-file,id=shm,share=on,mem-path=${join(shared, 'shm')},size=32M`],
    });
    try {
      const main = join(made.file, '../set');
      const { code, stderr } = await runCli(['convert', made.file, main, '--to', 'multifd']);
      expect(code).toBe(0);
      expect(stderr).toMatch(/shm is shared memory that was left out/);
      const set = { main, channels: [0, 1].map((i) => `${main}.${i}`) };
      const machine = machineOf(made.options);
      const qemu = await startFromSet({ machine, set, capabilities: ['x-ignore-shared'] });
      try {
        expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
      } finally {
        await qemu[Symbol.asyncDispose]();
      }
    } finally {
      made.dispose();
      rmSync(shared, { recursive: true });
    }
  });

  type Node = { 'node-name': string; 'dirty-bitmaps'?: { name: string; count: number }[] };
  const bitmapsOf = async (qemu: Qemu) =>
    (await qemu.execute<Node[]>('query-named-block-nodes'))
      .find((node) => node['node-name'] === 'null0')
      ?.['dirty-bitmaps']?.map(({ name, count }) => `${name} ${count}`);

  test.each(qemuVersions)('dirty bitmaps of disks: QEMU %s restores them', async (version) => {
    let before: string[] | undefined;
    const machine: Machine = {
      ...{ version, machine: 'bare' },
      args: [
        ...['-blockdev', 'null-co,node-name=null0,size=16777216,read-zeroes=on'],
        ...['-device', 'virtio-blk-pci,drive=null0,id=disk'],
      ],
    };
    const made = await capture({
      ...{ ...machine, route: 'exec', capabilities: ['dirty-bitmaps'] },
      fill: async ({ qemu }) => {
        await qemu.execute('block-dirty-bitmap-add', { node: 'null0', name: 'bm0', granularity: 65536 });
        await qemu.hmp('qemu-io -d disk "write 1M 200k"');
        before = await bitmapsOf(qemu);
      },
    });
    try {
      const set = await convertToSet(made, { compression: 'zlib', channels: 2 });
      const qemu = await startFromSet({ machine, set, compression: 'zlib', capabilities: ['dirty-bitmaps'] });
      try {
        expect(before?.length).toBe(1);
        expect(await bitmapsOf(qemu)).toEqual(before);
      } finally {
        await qemu[Symbol.asyncDispose]();
      }
    } finally {
      made.dispose();
    }
  });
});
