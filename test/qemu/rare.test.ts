/**
 * Rare forms of real QEMU output: postcopy in several pieces, other targets, other kinds of memory, old machine types,
 * and iterables besides RAM. The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { type CaptureOptions, capture } from './capture.ts';
import { type Expected, expectRead } from './expect-read.ts';
import { findQemu, type QemuTarget, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

interface Case {
  name: string;
  options: CaptureOptions;
  expected?: Expected;
  essential?: boolean;
}

const cases: Case[] = [];
const add = (name: string, options: CaptureOptions, expected: Expected = {}, essential = false) =>
  cases.push({ name: `${name} ${options.version}`, options, expected, essential });

/** A disk of 2.5 MiB: zeros, nonzero bytes, zeros. */
const diskDir = mkdtempSync(join(tmpdir(), 'vmferry-disk-'));
afterAll(() => rmSync(diskDir, { recursive: true }));
const disk = join(diskDir, 'disk');
writeFileSync(disk, new Uint8Array(2.5 * 2 ** 20).fill(0xa5, 2 ** 20, 2 ** 21));

for (const version of qemuVersions) {
  const is10 = version === '10.0';
  // The guest continues at the destination, and requests the pages that it rewrites.
  const postcopy = {
    ...{ version, machine: 'bare', route: 'socket', destinationRuns: true },
    parameters: { 'max-postcopy-bandwidth': 200_000 },
    workload: { passes: 1, postcopy: true, goesOn: true },
  } as const satisfies CaptureOptions;
  const plain = { ...postcopy, capabilities: ['postcopy-ram'] };
  const preempt = { ...postcopy, capabilities: ['postcopy-ram', 'postcopy-preempt'] };
  const asks: Expected = {
    check: ({ returnPaths }) => expect(returnPaths[0]?.counts.REQ_PAGES_ID).toBeGreaterThan(0),
  };
  add('postcopy with preemption', preempt, asks, is10);
  add('postcopy, broken and recovered', { ...plain, breaks: 1 }, {}, is10);
  add('postcopy with preemption, broken and recovered', { ...preempt, breaks: 1 });
  add('postcopy, broken twice', { ...plain, breaks: 2 });

  const pc = { version, machine: 'pc', route: 'exec' } as const;
  const memory = (id: string, size: string, more = '') => [
    '-object',
    `memory-backend-ram,id=${id},size=${size}${more}`,
  ];
  add('two NUMA nodes', {
    ...pc,
    args: [...memory('n0', '16M'), ...memory('n1', '16M'), '-numa', 'node,memdev=n0', '-numa', 'node,memdev=n1'],
  });
  // With a DIMM, QEMU 10.0 under TCG sometimes aborts (an assertion about its dirty bitmap).
  if (!is10) {
    const slots = ['-m', 'slots=2,maxmem=128M'];
    add('a DIMM', { ...pc, args: [...slots, ...memory('mem', '16M'), '-device', 'pc-dimm,id=dimm,memdev=mem'] });
  }
  const shared = ['-object', 'memory-backend-file,id=shm,share=on,mem-path=shm,size=32M'];
  const ignoring = { capabilities: ['x-ignore-shared'] };
  add(
    'shared memory that is ignored',
    { ...pc, ...ignoring, properties: ['memory-backend=shm'], args: shared },
    { ignored: ['shm'] },
    is10,
  );
  add('no shared memory to ignore', { ...pc, ...ignoring });
  add('background snapshot', { ...pc, capabilities: ['background-snapshot'], workload: { passes: 2 } });
  const off = (name: string) => ['-global', `migration.${name}=off`];
  add('no footers', { ...pc, args: off('send-section-footer') });
  add('no vmdesc', { ...pc, properties: ['suppress-vmdesc=on'] });
  add(
    'neither footers nor vmdesc',
    { ...pc, properties: ['suppress-vmdesc=on'], args: off('send-section-footer') },
    { warnings: ['guessed-boundary'] },
  );
  if (!is10) {
    add('no configuration', { ...pc, args: off('send-configuration') });
    const withDisk = {
      ...{ version, machine: 'bare', route: 'exec', args: ['-drive', `if=virtio,format=raw,file=${disk}`] },
      // Without a limit, QEMU sends nothing of a disk.
      parameters: { 'max-bandwidth': 2 ** 30 },
    } as const satisfies CaptureOptions;
    const hasDisk = (blocks: number): Expected => ({
      check: ({ sections }) => {
        const bytes = sections.reduce((sum, { name, length }) => sum + (name === 'block' ? length : 0), 0);
        expect(Math.floor(bytes / 2 ** 20)).toBe(blocks);
      },
    });
    add('disks in the stream', { ...withDisk, capabilities: ['block'] }, hasDisk(3));
    add('disks without their zeros', { ...withDisk, capabilities: ['block', 'zero-blocks'] }, hasDisk(1), true);
    add('an old machine type', { ...pc, type: 'pc-i440fx-2.1' }, { warnings: ['guessed-boundary'] }, true);
  }

  add('dirty bitmaps', {
    ...pc,
    capabilities: ['dirty-bitmaps'],
    fill: async ({ qemu, guest }, ours) => {
      await guest?.fill(ours, 'stripes', 3);
      for (const name of ['bm0', 'bm1']) {
        await qemu.execute('block-dirty-bitmap-add', { node: 'null0', name, granularity: 65536 });
      }
      await qemu.hmp('qemu-io -d null0 "write 1M 200k"').catch(() => {});
    },
  });

  const board = (type: string, target: QemuTarget, more: Partial<CaptureOptions> = {}) =>
    ({ version, machine: 'board', type, target, route: 'exec', ...more }) as CaptureOptions;
  add('virt, aarch64', board('virt', 'aarch64', { properties: ['acpi=off'], loadAt: 0x4010_0000 }));
  add('pseries, ppc64', board('pseries', 'ppc64', { firmware: true, ramMiB: 256 }));
  const css: Expected = is10 ? {} : { warnings: ['description-mismatch'] };
  add('s390-ccw-virtio, s390x', board('s390-ccw-virtio', 's390x'), css);
  const none = (target: QemuTarget) => ({ version, machine: 'none', target, route: 'exec' }) as const;
  add('none, aarch64', none('aarch64'), { pageSize: 1024 });
  add('none, ppc64', none('ppc64'));
  // QEMU 7.2 divides by zero when it migrates sparc64.
  if (!is10) continue;
  add('sun4u, sparc64', board('sun4u', 'sparc64', { firmware: true }), { pageSize: 8192 });
  add('none, sparc64', none('sparc64'), { pageSize: 8192 });
}

const isFull = process.env.VMFERRY_QEMU === 'full';
const hasTarget = ({ options: { version, target } }: Case) => findQemu(version, target) !== undefined;
const wanted = cases.filter(({ essential }) => isFull || essential);

describe.skipIf(lacksQemu('7.2', '10.0'))('rare forms of QEMU output', () => {
  for (const missing of wanted.filter((each) => !hasTarget(each))) {
    console.warn(`skipped: ${missing.name}: that QEMU is not installed; run test/qemu/install.sh`);
  }
  const must = process.env.VMFERRY_REQUIRE_QEMU === '1';
  test.each(wanted.filter((each) => must || hasTarget(each)))('$name', async ({ options, expected }) => {
    const made = await capture(options);
    try {
      await expectRead(made, expected);
    } finally {
      made.dispose();
    }
  });
});

describe.skipIf(!isFull || lacksQemu('10.0'))('a background snapshot into a mapped-ram file', () => {
  test('is refused, since QEMU 10.0 never writes its bitmaps', async () => {
    const made = await capture({
      version: '10.0',
      machine: 'pc',
      route: 'mapped-ram',
      capabilities: ['background-snapshot'],
    });
    try {
      const verified = await runCli(['verify', '--json', made.file]);
      expect(verified.code).toBe(1);
      const { findings } = JSON.parse(verified.stdout);
      expect(findings[0].code).toBe('untrusted-bitmap');
    } finally {
      made.dispose();
    }
  });
});
