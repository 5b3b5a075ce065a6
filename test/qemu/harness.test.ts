/**
 * Tests the harness itself: real QEMU runs, answers and ends; the guest writes what it should; the truth is correct;
 * and QEMU loads what it saved by each route, with the same RAM. VMFERRY_QEMU=full runs more of the routes.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { type Capture, type CaptureOptions, capture } from './capture.ts';
import { type DirtyKind, dirtyKinds, dirtyPage, fillKinds, guestPage } from './guest.ts';
import { loadCapture } from './load.ts';
import { PAGE, pagesOfOurs, startMachine } from './machine.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences, findAddresses, readTruth, type Truth, traceAddresses } from './truth.ts';

const guestDir = fileURLToPath(new URL('./guest/', import.meta.url));

/** One test's machine: stopped, its truth read, ended. */
async function truthOf(qemu: Qemu): Promise<Map<string, Buffer>> {
  await qemu.execute('stop');
  return bytesOf(await readTruth(qemu, qemu.dir, await findAddresses(qemu)));
}

const bytesOf = (truth: Truth) => new Map([...truth].map(([idstr, { path }]) => [idstr, readFileSync(path)]));

const hasGcc = spawnSync('gcc', ['--version']).status === 0;

test.skipIf(!hasGcc)('the images of guests match their sources', () => {
  const dir = mkdtempSync(join(tmpdir(), 'vmferry-'));
  try {
    execFileSync(join(guestDir, 'build.sh'), [dir]);
    for (const name of readdirSync(dir)) {
      expect(readFileSync(join(dir, name)).equals(readFileSync(join(guestDir, name))), name).toBe(true);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

describe.each(qemuVersions)('QEMU %s', (version) => {
  describe.skipIf(lacksQemu(version))('harness', () => {
    test('a QEMU that exits at once reports why', async () => {
      await expect(Qemu.start({ version, args: ['-nonesuch'] })).rejects.toThrow(/-nonesuch: invalid option/);
    });

    test('killing a QEMU fails all waits for it and leaves nothing behind', async () => {
      const { qemu } = await startMachine({ version, machine: 'none' });
      const waiting = expect(qemu.event('NEVER')).rejects.toThrow(/killed by SIGKILL/);
      process.kill(qemu.pid, 'SIGKILL');
      await waiting;
      await qemu[Symbol.asyncDispose]();
      expect(existsSync(qemu.dir)).toBe(false);
    });

    test("a failed migration reports QEMU's reason", async () => {
      await using qemu = (await startMachine({ version, machine: 'none' })).qemu;
      const failed = qemu.migrate(`unix:${qemu.dir}/nobody`);
      await expect(failed).rejects.toThrow(/nobody': No such file/);
      await expect(qemu.execute('nonesuch')).rejects.toThrow(/has not been found/);
    });

    test('the truth of machine none equals its backing file', async () => {
      const options: CaptureOptions = { version, machine: 'none', ramMiB: 4, route: 'exec' };
      const made = await capture({ ...options });
      try {
        const ram = readFileSync(made.truth.get('ram')!.path);
        expect(ram.length).toBe(4 << 20);
        for (let page = 0; page < 1024; page++) {
          expect(
            ram.subarray(page * PAGE, (page + 1) * PAGE).equals(guestPage('stripes', page, 7)),
            `page ${page}`,
          ).toBe(true);
        }
      } finally {
        made.dispose();
      }
    });

    test('the guest fills and dirties as predicted', async () => {
      const machine = { version, machine: 'bare' } as const;
      const ours = pagesOfOurs(machine);
      const { qemu, guest } = await startMachine(machine);
      await using _qemu = qemu;
      const expected = new Map<number, Uint8Array>();
      let first = ours.first;
      for (const kind of fillKinds) {
        await guest!.fill({ first, count: 20 }, kind, 0x80000001);
        for (let page = first; page < first + 20; page++) expected.set(page, guestPage(kind, page, 0x80000001));
        first += 20;
      }
      for (const kind of dirtyKinds) {
        await guest!.fill({ first, count: 20 }, 'stripes', 3);
        await guest!.dirty({ first, count: 20 }, kind, 3);
        for (let page = first; page < first + 20; page++) {
          const bytes = guestPage('stripes', page, 3);
          for (let round = 0; round < 3; round++) dirtyPage(bytes, kind, page, round);
          expected.set(page, bytes);
        }
        first += 20;
      }
      const ram = (await truthOf(qemu)).get('pc.ram')!;
      for (const [page, bytes] of expected) {
        expect(ram.subarray(page * PAGE, (page + 1) * PAGE).equals(bytes), `page ${page - ours.first} of ours`).toBe(
          true,
        );
      }
      expect(ram.subarray(first * PAGE).every((byte) => byte === 0)).toBe(true);
    });

    test('the guest counts its rounds while it dirties, and stops', async () => {
      const machine = { version, machine: 'bare' } as const;
      const { qemu, guest } = await startMachine(machine);
      await using _qemu = qemu;
      await guest!.ballast({ first: 300, count: 2 });
      await guest!.startDirtying({ first: 256, count: 4 }, 'few-bytes', 2);
      const before = await guest!.count();
      let after = before;
      while (after === before) after = await guest!.count();
      expect(after).toBeGreaterThan(before);
      const rounds = await guest!.stop();
      expect(rounds).toBeGreaterThanOrEqual(after);
      expect(await guest!.count()).toBe(rounds);
    });

    test('the truth of a running guest is refused', async () => {
      const { qemu } = await startMachine({ version, machine: 'bare' });
      await using _qemu = qemu;
      await expect(readTruth(qemu, qemu.dir, await findAddresses(qemu))).rejects.toThrow(
        /expected a stopped guest, got status running/,
      );
    });

    test('the truth of an ambiguous block is refused, except when all candidates are zero', async () => {
      const { qemu, guest } = await startMachine({ version, machine: 'bare' });
      await using _qemu = qemu;
      await guest!.fill({ first: 256, count: 1 }, 'text');
      const addresses = await findAddresses(qemu);
      await qemu.execute('stop');
      addresses.delete('pc.ram');
      await expect(readTruth(qemu, qemu.dir, addresses)).rejects.toThrow(
        /truth: pc.ram had no data page|truth: found no memory/,
      );
    });

    test("the addresses of traced pages match the monitor's", async () => {
      const { qemu, guest } = await startMachine({ version, machine: 'pc' });
      await using _qemu = qemu;
      await guest!.fill({ first: 256, count: 16 }, 'text');
      const traced = await traceAddresses(qemu);
      for (const [guestAddress, idstr] of [
        [0x100000, 'pc.ram'],
        [0xfffc0000, 'pc.bios'],
      ] as const) {
        const said = await qemu.hmp(`gpa2hva 0x${guestAddress.toString(16)}`);
        const offset = idstr === 'pc.ram' ? guestAddress : 0;
        expect(said).toContain(`(${idstr}) is 0x${(traced.get(idstr)! + offset).toString(16)}`);
      }
      if (version === '10.0') {
        const reported = await findAddresses(qemu);
        expect(traced.size).toBeGreaterThan(6);
        for (const [idstr, address] of traced) expect(address, idstr).toBe(reported.get(idstr));
      }
    });
  });

  const passes = { workload: { passes: 4 } };
  const loop = (kind: DirtyKind) => ({ workload: { passes: 5, loop: { kind } } });
  type Row = [string, Omit<CaptureOptions, 'version'>];
  const everywhere: Row[] = [
    ['none, by exec', { machine: 'none', route: 'exec' }],
    ['bare, by exec', { machine: 'bare', route: 'exec' }],
    ['q35 with devices, by exec', { machine: 'q35', route: 'exec' }],
    ['passes with xbzrle', { machine: 'bare', route: 'exec', capabilities: ['xbzrle'], ...passes }],
    ['no vmdesc', { machine: 'pc', route: 'exec', properties: ['suppress-vmdesc=on'] }],
    ['background snapshot', { machine: 'bare', route: 'exec', capabilities: ['background-snapshot'], ...passes }],
    [
      'postcopy',
      { machine: 'pc', route: 'socket', capabilities: ['postcopy-ram'], workload: { passes: 2, postcopy: true } },
    ],
    ['multifd', { machine: 'bare', route: 'socket', capabilities: ['multifd'], ...passes }],
  ];
  const onlyFull: Row[] = [
    ['pc with devices, by exec', { machine: 'pc', route: 'exec' }],
    ['no footers', { machine: 'pc', route: 'exec', args: ['-global', 'migration.send-section-footer=off'] }],
    ['passes', { machine: 'bare', route: 'exec', ...passes }],
    [
      'passes, with nothing left for the end',
      { machine: 'bare', route: 'exec', workload: { passes: 4, leaveSome: false } },
    ],
    ['passes while the guest loops', { machine: 'bare', route: 'exec', ...loop('mixed') }],
    ['pc with devices, passes with xbzrle', { machine: 'pc', route: 'exec', capabilities: ['xbzrle'], ...passes }],
    ['xbzrle while the guest loops', { machine: 'bare', route: 'exec', capabilities: ['xbzrle'], ...loop('mixed') }],
  ];
  const only72: Row[] = [
    ['compress', { machine: 'none', route: 'exec', capabilities: ['compress'] }],
    ['passes with compress', { machine: 'bare', route: 'exec', capabilities: ['compress'], ...passes }],
    ['an old machine type', { machine: 'pc', route: 'exec', type: 'pc-i440fx-2.1' }],
  ];
  const multifd = { capabilities: ['multifd'], parameters: { 'multifd-channels': 3 } };
  const mapped = { route: 'mapped-ram' } as const;
  const only100: Row[] = [
    ['none, into a file', { machine: 'none', route: 'file' }],
    ['into a file at an offset', { machine: 'bare', route: 'file', offset: 4097 }],
    ['mapped-ram', { machine: 'none', ...mapped }],
    ['mapped-ram at an offset', { machine: 'none', ...mapped, offset: 12345 }],
    ['mapped-ram with multifd', { machine: 'bare', ...mapped, ...multifd, ...passes }],
    ['mapped-ram, no zero pages', { machine: 'bare', ...mapped, parameters: { 'zero-page-detection': 'none' } }],
    [
      'mapped-ram with multifd, zero pages found by the main thread',
      {
        machine: 'bare',
        ...mapped,
        ...multifd,
        parameters: { ...multifd.parameters, 'zero-page-detection': 'legacy' },
      },
    ],
  ];
  const rows = [...everywhere, ...(version === '7.2' ? only72 : only100)];
  if (process.env.VMFERRY_QEMU === 'full') rows.push(...onlyFull);

  describe.skipIf(lacksQemu(version))('QEMU loads what it saved, with the same RAM', () => {
    test.each(rows)('%s', async (_name, row) => {
      const options: CaptureOptions = { version, ...row };
      const made = await capture(options);
      try {
        expectAsAsked(made, options);
        if (made.destinationTruth) expect(differences(made.destinationTruth, made.truth)).toEqual([]);
        else await expectLoads(made);
      } finally {
        made.dispose();
      }
    });
  });
});

/** Checks by QEMU's own counters that the capture matches its options. */
function expectAsAsked(made: Capture, options: CaptureOptions): void {
  const { info, usedCapabilities } = made;
  if (options.workload && !usedCapabilities.includes('background-snapshot')) {
    expect(info.ram!['dirty-sync-count']).toBeGreaterThan(options.workload.passes);
  }
  if (usedCapabilities.includes('xbzrle')) {
    const { pages, overflow, 'cache-miss': misses } = info['xbzrle-cache']!;
    expect(pages! - overflow!).toBeGreaterThan(0);
    expect(misses).toBeGreaterThan(0);
    expect(info.ram!['dirty-sync-count']).toBeGreaterThanOrEqual(4);
  }
  if (usedCapabilities.includes('postcopy-ram')) expect(info.ram!['postcopy-bytes']).toBeGreaterThan(0);
  if (options.route === 'socket') {
    expect(made.channels!.length).toBe(usedCapabilities.includes('multifd') ? 3 : 1);
    for (const { file } of made.channels!) expect(readFileSync(file).length).toBeGreaterThan(0);
  }
}

async function expectLoads(made: Capture): Promise<void> {
  const loaded = await loadCapture(made);
  try {
    expect(differences(loaded.truth, made.truth)).toEqual([]);
  } finally {
    loaded.dispose();
  }
}
