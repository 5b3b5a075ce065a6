/**
 * Real QEMU loads what vmferry converts: the built command line converts captures of every encoding to a stream and to
 * a mapped-ram file. RAM of the loaded machine equals the source's, and its guest continues.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { appendTo, type InspectJson, MemoryFile, OutputFile, RawRam, writeStream } from '../../src/node.ts';
import { runCli } from '../run-cli.ts';
import { type Capture, type CaptureOptions, capture } from './capture.ts';
import { expectCounting } from './expect-counting.ts';
import { partOptions } from './expect-read.ts';
import { dirtyPage, guestPage } from './guest.ts';
import { expectRunsOn, loadInto, withLoaded } from './load.ts';
import { fillStripes, type Machine, startDestination, writePage } from './machine.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences } from './truth.ts';

interface Case {
  name: string;
  options: CaptureOptions;
  essential?: boolean;
  /** Capabilities of the QEMU that loads it. */
  loadWith?: string[];
}

const workload = { passes: 3 };
const cases: Case[] = [];
for (const version of ['7.2', '10.0'] as const) {
  for (const machine of ['none', 'bare', 'pc', 'q35'] as const) {
    cases.push({ name: `${machine} plain ${version}`, options: { version, machine, route: 'exec' } });
    if (machine === 'none') continue;
    cases.push({
      name: `${machine} XBZRLE ${version}`,
      options: { version, machine, route: 'exec', workload, capabilities: ['xbzrle'] },
      essential: machine === (version === '10.0' ? 'q35' : 'pc'),
    });
    const compression = { bare: 'none', pc: 'zlib', q35: 'zstd' }[machine];
    const parameters = {
      ...{ 'multifd-compression': compression, 'multifd-channels': 2 },
      // Compressed data takes less time on the wire: reduce the bandwidth, so that the guest keeps up with the passes.
      ...(machine === 'bare' ? {} : { 'max-bandwidth': 4 << 20 }),
    };
    cases.push({
      name: `${machine} multifd ${compression} ${version}`,
      options: { version, machine, route: 'multifd', workload, parameters },
      essential: machine === 'bare',
    });
  }
  cases.push({
    name: `bare postcopy ${version}`,
    options: {
      ...{ version, machine: 'bare', route: 'socket', capabilities: ['postcopy-ram'] },
      workload: { passes: 2, postcopy: true },
    },
  });
  cases.push({
    name: `pc background snapshot ${version}`,
    options: { version, machine: 'pc', route: 'exec', capabilities: ['background-snapshot'], workload: { passes: 2 } },
  });
  cases.push({
    name: `pc without footers ${version}`,
    options: { version, machine: 'pc', route: 'exec', args: ['-global', 'migration.send-section-footer=off'] },
  });
  cases.push({
    name: `bare dirty bitmaps ${version}`,
    options: {
      ...{ version, machine: 'bare', route: 'exec', capabilities: ['dirty-bitmaps'] },
      args: [
        '-blockdev',
        'null-co,node-name=null0,size=16777216,read-zeroes=on',
        '-device',
        'virtio-blk-pci,drive=null0',
      ],
      fill: async ({ qemu, guest }, ours) => {
        await guest?.fill(ours, 'stripes', 3);
        for (const name of ['bm0', 'bm1'])
          await qemu.execute('block-dirty-bitmap-add', { node: 'null0', name, granularity: 65536 });
      },
    },
    loadWith: ['dirty-bitmaps'],
  });
}
cases.push({
  name: 'pc compressed pages 7.2',
  options: { version: '7.2', machine: 'pc', route: 'exec', workload, capabilities: ['compress'] },
});
for (const machine of ['none', 'pc', 'q35'] as const) {
  cases.push({
    name: `${machine} mapped-ram without zero page detection 10.0`,
    options: { version: '10.0', machine, route: 'mapped-ram', parameters: { 'zero-page-detection': 'none' } },
    essential: machine === 'none',
  });
}
for (const target of ['aarch64', 'sparc64'] as const) {
  cases.push({ name: `none ${target} 10.0`, options: { version: '10.0', machine: 'none', target, route: 'exec' } });
}

const isFull = process.env.VMFERRY_QEMU === 'full';
const wanted = cases.filter(({ essential }) => isFull || essential === true);

/** Runs `vmferry convert`, which must print no message. */
async function convert(from: string, to: string, ...options: string[]): Promise<void> {
  const { code, stderr, stdout } = await runCli(['convert', from, to, '--json', ...options]);
  expect([code, stderr]).toEqual([0, '']);
  expect(JSON.parse(stdout)).toMatchObject({ output: to, isVerified: true, length: statSync(to).size });
}

/** Loads a file into a QEMU like the source and compares RAM, block by block. */
async function expectLoads(made: Capture, file: string, loadWith: string[] = []): Promise<void> {
  const { fill: _, workload: __, parameters: ___, capabilities: ____, ...machine } = made.options;
  const route = file.endsWith('.mapped-ram') ? 'mapped-ram' : 'exec';
  const loaded = await loadInto({ ...machine, route, file, capabilities: loadWith });
  try {
    expect(differences(loaded.truth, made.truth), `RAM loaded from ${file}`).toEqual([]);
  } finally {
    loaded.dispose();
  }
}

describe.skipIf(lacksQemu('7.2', '10.0'))('QEMU loads what vmferry converts', () => {
  test.each(wanted)('$name', async ({ options, loadWith }) => {
    const made = await capture(options);
    try {
      const directory = join(made.file, '..');
      const [mapped, back, direct] = ['first.mapped-ram', 'back.stream', 'direct.stream'].map((name) =>
        join(directory, name),
      ) as [string, string, string];
      await convert(made.file, direct, ...partOptions(made));
      await convert(made.file, mapped, ...partOptions(made));
      await convert(mapped, back);
      await expectLoads(made, direct, loadWith);
      await expectLoads(made, back, loadWith);
      if (made.version === '10.0') await expectLoads(made, mapped, loadWith);
      if (options.machine === 'none' || loadWith !== undefined) return;
      const { fill: _, workload: __, parameters: ___, capabilities: ____, ...machine } = options;
      await expectRunsOn(machine, back);
      if (made.version === '10.0') await expectRunsOn(machine, mapped);
    } finally {
      made.dispose();
    }
  });
});

describe.skipIf(lacksQemu('10.0'))('a conversion to an offset in a file', () => {
  const machines = isFull ? (['none', 'bare', 'pc', 'q35'] as const) : (['bare'] as const);
  test.each(machines)('is loaded by QEMU (%s)', async (machine) => {
    const options: CaptureOptions = { version: '10.0', machine, route: 'exec' };
    const made = await capture(options);
    try {
      for (const [route, form, offset] of [
        ['mapped-ram', 'mapped-ram', 12345],
        ['file', 'stream', (1 << 20) + 1],
      ] as const) {
        const file = join(made.file, `../disk-${form}.img`);
        writeFileSync(file, Buffer.alloc(offset + 5000, 'x'));
        const { code, stderr } = await runCli(['convert', made.file, `${file},offset=${offset}`, '--to', form]);
        expect([code, stderr]).toEqual([0, '']);
        expect(readFileSync(file).subarray(0, offset).equals(Buffer.alloc(offset, 'x'))).toBe(true);
        const loaded = await loadInto({ version: '10.0', machine, route, file, offset });
        expect(differences(loaded.truth, made.truth), `RAM loaded from ${file}`).toEqual([]);
        loaded.dispose();
      }
    } finally {
      made.dispose();
    }
  });
});

describe.skipIf(lacksQemu('10.0'))('a guest saved in the middle of its work', () => {
  test('continues from the stream, from a mapped-ram file made from it, and from a stream made from that', async () => {
    let counted = 0;
    const options: CaptureOptions = {
      ...{ version: '10.0', machine: 'q35', route: 'exec' },
      fill: async ({ guest }, ours) => {
        await guest?.fill(ours, 'stripes', 5);
        await guest?.startDirtying({ first: ours.first, count: 64 }, 'few-bytes', 100);
        while (guest !== undefined && counted === 0) counted = await guest.count();
      },
    };
    const made = await capture(options);
    try {
      const mapped = join(made.file, '../first.mapped-ram');
      const back = join(made.file, '../back.stream');
      await convert(made.file, mapped);
      await convert(mapped, back);
      expect(counted).toBeGreaterThan(0);
      for (const file of [mapped, back]) {
        await expectLoads(made, file);
        await withLoaded({ version: '10.0', machine: 'q35' }, file, (guest) => expectCounting(guest, counted));
      }
    } finally {
      made.dispose();
    }
  });
});

describe.skipIf(lacksQemu('7.2', '10.0'))('a stream made from only a RAM image', () => {
  test.each(qemuVersions)('is loaded by QEMU %s', async (version) => {
    const directory = Qemu.makeDir();
    try {
      const image = new Uint8Array(8 << 20);
      for (let page = 3; page < 2048; page += 5) image.set(guestPage('stripes', page, 11), page * 4096);
      const path = join(directory, 'authored.stream');
      const output = new OutputFile(path);
      const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
      await writeStream({ configuration: { machine: 'none', capabilities: [] }, ram }, appendTo(output.file));
      await output.commit();
      const loaded = await loadInto({ version, machine: 'none', route: 'exec', file: path });
      expect([...loaded.truth.keys()]).toEqual(['ram']);
      const there = readFileSync(loaded.truth.get('ram')?.path ?? '');
      loaded.dispose();
      expect(Buffer.compare(there, image), 'RAM of the loaded machine').toBe(0);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe.skipIf(lacksQemu('7.2', '10.0'))('a save and an earlier one, as a stream with deltas', () => {
  const machines = isFull ? (['none', 'bare', 'pc', 'q35'] as const) : (['bare'] as const);
  const both = machines.flatMap((machine) => qemuVersions.map((version) => ({ machine, version })));
  test.each(both)('is loaded by QEMU $version ($machine)', async ({ machine, version }) => {
    const base: CaptureOptions = { version, machine, route: 'exec' };
    const old = await capture(base);
    const now = await capture({
      ...base,
      fill: async (running, ours) => {
        await fillStripes(running, ours);
        await running.guest?.dirty({ first: ours.first, count: 128 }, 'mixed', 2);
        if (machine !== 'none') return;
        for (let page = 0; page < 64; page++) {
          const bytes = guestPage('stripes', page, 7);
          dirtyPage(bytes, 'mixed', page, 1);
          writePage(running.qemu, page, bytes);
        }
      },
    });
    try {
      const both = join(now.file, '../both.stream');
      await convert(now.file, both, '--base', old.file);
      const { ram } = JSON.parse((await runCli(['inspect', '--json', both])).stdout) as InspectJson;
      expect(ram.records.xbzrle.records).toBeGreaterThan(20);
      expect(ram.passes).toBe(2);
      await expectLoads(now, both);
      if (machine !== 'none') await expectRunsOn({ version, machine }, both);
    } finally {
      old.dispose();
      now.dispose();
    }
  });
});

describe.skipIf(!isFull || lacksQemu('7.2', '10.0'))('data that passes through unchanged', () => {
  type Node = { 'node-name': string; 'dirty-bitmaps'?: { name: string; count: number }[] };
  const bitmapsOf = async (qemu: Qemu) =>
    (await qemu.execute<Node[]>('query-named-block-nodes'))
      .find((node) => node['node-name'] === 'null0')
      ?.['dirty-bitmaps']?.map(({ name, count }) => `${name} ${count}`)
      .sort();

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
        await qemu.execute('block-dirty-bitmap-add', { node: 'null0', name: 'bm1', granularity: 65536 });
        before = await bitmapsOf(qemu);
      },
    });
    const mapped = join(made.file, '../first.mapped-ram');
    const back = join(made.file, '../back.stream');
    try {
      await convert(made.file, mapped);
      await convert(mapped, back);
      expect(before?.length).toBe(2);
      for (const file of version === '10.0' ? [mapped, back] : [back]) {
        const qemu = await startDestination(machine);
        try {
          const isMapped = file === mapped;
          await qemu.setCapabilities(isMapped ? ['mapped-ram', 'dirty-bitmaps'] : ['dirty-bitmaps']);
          await qemu.execute('migrate-incoming', { uri: isMapped ? `file:${file}` : `exec:cat '${file}'` });
          await qemu.waitForMigration();
          expect(await bitmapsOf(qemu)).toEqual(before);
        } finally {
          await qemu[Symbol.asyncDispose]();
        }
      }
    } finally {
      made.dispose();
    }
  });

  test.each(qemuVersions)('omitted shared memory: QEMU %s, which has it, loads the rest', async (version) => {
    const shared = Qemu.makeDir();
    const made = await capture({
      ...{ version, machine: 'pc', route: 'exec', capabilities: ['x-ignore-shared'] },
      properties: ['memory-backend=shm'],
      args: ['-object', `memory-backend-file,id=shm,share=on,mem-path=${join(shared, 'shm')},size=32M`],
    });
    try {
      const out = join(made.file, '../out.stream');
      const { code, stderr } = await runCli(['convert', made.file, out]);
      expect(code).toBe(0);
      expect(stderr).toMatch(/shm is shared memory that was left out/);
      const { capabilities, ...options } = made.options;
      const loaded = await loadInto({ ...options, route: 'exec', file: out, capabilities: capabilities ?? [] });
      expect(differences(loaded.truth, made.truth)).toEqual([]);
      loaded.dispose();
      const refused = await runCli(['convert', made.file, join(made.file, '../out.mapped-ram')]);
      expect(refused.code).toBe(1);
      expect(refused.stderr).toMatch(/"shm" was left out .*\[unsupported\]/);
    } finally {
      made.dispose();
      rmSync(shared, { recursive: true });
    }
  });
});
