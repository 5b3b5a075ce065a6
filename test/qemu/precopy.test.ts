/**
 * A synthetic guest that writes while it is sent, into a real QEMU: what arrives is what the guest had when it stopped, and
 * the passes follow QEMU's rules. QEMU checks the stream: every page, mark and footer must be where it expects them.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import type { WorkloadOptions } from '../../src/guest/workload.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import type { SendMultifd, SendRunning } from '../../src/migrate/send-options.ts';
import { send } from '../../src/migrate/source.ts';
import { throttleDefaults } from '../../src/schema/precopy-rules.ts';
import { releaseRulesOf } from '../../src/schema/release-rules.ts';
import type { GuestBlock } from '../../src/vm/guest.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';

const MiB = 1 << 20;
const size = 64 * MiB;

interface Scene {
  workload: WorkloadOptions;
  bandwidth: number;
  capabilities?: string[];
  parameters?: Record<string, unknown>;
  multifd?: SendMultifd;
  running?: (guest: SyntheticGuest) => Partial<SendRunning>;
}

const scenes: Record<string, Scene> = {
  'until downtime-limit suffices': {
    workload: { rate: 20 * MiB, workingSet: 16 * MiB, pattern: 'text' },
    bandwidth: 64 * MiB,
  },
  'with XBZRLE': {
    workload: { rate: 40 * MiB, workingSet: 16 * MiB, pattern: 'counter' },
    bandwidth: 32 * MiB,
    capabilities: ['xbzrle'],
    running: () => ({ xbzrle: { cacheSize: 64 * MiB } }),
  },
  'with auto-converge': {
    workload: { rate: 80 * MiB, workingSet: 32 * MiB, pattern: 'random' },
    bandwidth: 64 * MiB,
    running: (guest) => ({
      parameters: parametersOf(64 * MiB, { 'cpu-throttle-initial': 80 }),
      throttle: (percentage) => guest.throttle(percentage),
    }),
  },
  'through three channels': {
    workload: { rate: 20 * MiB, workingSet: 16 * MiB, pattern: 'random' },
    bandwidth: 64 * MiB,
    capabilities: ['multifd'],
    parameters: { 'multifd-channels': 3 },
    multifd: { channels: 3 },
  },
};

function parametersOf(bandwidth: number, more = {}) {
  const rest = { 'downtime-limit': 300, 'avail-switchover-bandwidth': 0, 'max-bandwidth': bandwidth };
  return { ...throttleDefaults, ...rest, ...more };
}

/** Starts a QEMU without a machine, whose RAM is a file. */
async function startWaiting(version: QemuVersion, { capabilities = [], parameters = {} }: Scene) {
  const dir = Qemu.makeDir();
  const ram = join(dir, 'ram');
  const backend = `memory-backend-file,id=ram,mem-path=${ram},size=${size},share=on`;
  const args = ['-M', 'none,memory-backend=ram', '-m', '64', '-nodefaults', '-object', backend, '-incoming', 'defer'];
  const qemu = await Qemu.start({ version, dir, args });
  if (capabilities.length > 0) await qemu.setCapabilities(capabilities);
  await qemu.setParameters(parameters);
  const uri = `unix:${join(dir, 'incoming')}`;
  await qemu.execute('migrate-incoming', { uri });
  return { qemu, ram, uri };
}

describe.each(['7.2', '10.0'] as const)('into QEMU %s', (version) => {
  test.skipIf(lacksQemu(version)).each(Object.keys(scenes))('%s', async (name) => {
    const scene = scenes[name]!;
    const { qemu, ram: file, uri } = await startWaiting(version, scene);
    await using _ = qemu;
    const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size }]);
    const image = new Uint32Array(size / 4);
    for (let i = 0; i < image.length; i++) image[i] = (i >> 10) % 2 === 0 ? 0 : Math.imul(i, 2654435761);
    await ram.load(ram.blocks[0]!, new MemoryFile('image', new Uint8Array(image.buffer)));
    const guest = new SyntheticGuest({ ram, workload: scene.workload });
    let syncs = 0;
    const openChannel = () => connectTo(parseMigrationUri(uri));
    const sent = await send(
      guest,
      { main: await openChannel(), openChannel },
      {
        rules: releaseRulesOf('none', version),
        running: { parameters: parametersOf(scene.bandwidth), onSync: () => syncs++, ...scene.running?.(guest) },
        ...(scene.multifd === undefined ? {} : { multifd: scene.multifd }),
      },
    );
    expect(sent.isConfirmed).toBe(true);
    await qemu.waitForMigration();
    expect(guest.isRunning).toBe(false);
    // It wrote while it was sent: a first pass, at least one more, and the last.
    expect(syncs).toBeGreaterThanOrEqual(3);
    const arrived = readFileSync(file);
    const here = new Uint8Array(MiB);
    for (let at = 0; at < size; at += MiB) {
      await guest.read(ram.blocks[0]!, at / 4096, here);
      expect(Buffer.compare(arrived.subarray(at, at + MiB), here), `RAM from ${at} on`).toBe(0);
    }
    if (name.includes('XBZRLE')) expect(sent.xbzrle?.pages).toBeGreaterThan(100);
  });

  test.skipIf(lacksQemu(version))('as it was at one moment, while it runs on', async () => {
    const workload = { rate: 200 * MiB, workingSet: 48 * MiB, pattern: 'random' as const };
    const { qemu, ram: file, uri } = await startWaiting(version, { workload, bandwidth: 0 });
    await using _ = qemu;
    const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size }]);
    const [block] = ram.blocks as [GuestBlock];
    const guest = new SyntheticGuest({ ram, workload });
    const truth = new Uint8Array(size);
    const stop = async () => {
      await guest.stop();
      await ram.read(block, 0, truth);
    };
    // Whoever asks makes the guest write, as one does who watches it.
    const ended = new AbortController();
    const watching = (async () => {
      while (!ended.signal.aborted) {
        await guest.look();
        await new Promise(setImmediate);
      }
    })();
    const { blocks, configuration } = guest;
    const source = { blocks, ram, configuration, stop, syncDirty() {}, saveDevices: () => guest.saveDevices() };
    const main = await connectTo(parseMigrationUri(uri));
    const background = { freeze: () => ram.freeze({ memoryBytes: 4 * MiB }), cont: () => guest.cont() };
    const sent = await send(source, { main }, { rules: releaseRulesOf('none', version), background });
    await qemu.waitForMigration();
    ended.abort();
    await watching;
    expect(sent.progress).toMatchObject({ status: 'completed', ram: { 'dirty-sync-count': 0, total: size } });
    expect(guest.isRunning).toBe(true);
    expect(Buffer.compare(readFileSync(file), truth)).toBe(0);
    const now = new Uint8Array(size);
    await guest.read(block, 0, now);
    expect(Buffer.compare(now, truth)).not.toBe(0);
  });
});
