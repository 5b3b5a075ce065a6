/**
 * Real QEMU loads VM states of our own guests that vmferry saved into qcow2 images, by snapshot-load and by -loadvm, and
 * its RAM is the guest's.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { WritableQcow2, writeGuest } from '../../src/node.ts';
import { MemoryGuest } from '../write/memory-guest.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { checkImage, cleanImage, lacksQemuImg, openWritable, qemuImg } from './qemu-img.ts';
import { lacksQemu } from './require.ts';

const ramBytes = 4 << 20;

/** A guest without devices, whose RAM has data in every other page. */
function makeGuest(seed: number): MemoryGuest {
  const guest = new MemoryGuest({ ram: ramBytes / 4096 });
  for (let page = 0; page < ramBytes / 4096; page += 2) guest.write(0, page, page % 4000, seed, page & 255, page >> 8);
  return guest;
}

async function ramOf(qemu: Qemu): Promise<Buffer> {
  const filename = join(qemu.dir, 'ram');
  await qemu.execute('pmemsave', { val: 0, size: ramBytes, filename });
  return readFileSync(filename);
}

describe.each(qemuVersions)('QEMU %s', (version) => {
  test.skipIf(lacksQemu(version) || lacksQemuImg())('loads what vmferry saved into two disks', async () => {
    const dir = Qemu.makeDir();
    const [path, second] = [join(dir, 'disk.qcow2'), join(dir, 'second.qcow2')] as const;
    const guests = new Map([
      ['one', makeGuest(1)],
      ['two', makeGuest(2)],
    ]);
    for (const each of [path, second]) {
      await qemuImg(version, 'create', '-q', '-f', 'qcow2', each, '64M');
      const store = openWritable(each);
      const image = await WritableQcow2.open(store);
      for (const [name, guest] of guests) {
        const made = { name, dateSeconds: 1_700_000_000, dateNanoseconds: 0, vmClock: 5_000_000_000n };
        if (each === second) await image.save(made);
        else await image.save(made, async (sink) => void (await writeGuest(guest, sink)));
      }
      await store.close();
    }
    const drives = [path, second].flatMap((file, i) => ['-drive', `if=none,id=d${i},node-name=n${i},file=${file}`]);
    const args = ['-M', 'none', '-m', `${ramBytes >> 20}M`, ...drives];
    const qemu = await Qemu.start({ version, args: [...args, '-loadvm', 'two', '-S'], dir });
    try {
      expect((await ramOf(qemu)).equals(guests.get('two')?.contents[0] as Uint8Array)).toBe(true);
      const job = { 'job-id': 'load', tag: 'one', vmstate: 'n0', devices: ['n0', 'n1'] };
      const from = qemu.events.length;
      await qemu.execute('snapshot-load', job);
      await qemu.event('JOB_STATUS_CHANGE', { from, where: ({ status }) => status === 'concluded' });
      const [load] = await qemu.execute<{ error?: string }[]>('query-jobs');
      expect(load?.error).toBeUndefined();
      expect((await ramOf(qemu)).equals(guests.get('one')?.contents[0] as Uint8Array)).toBe(true);
      await qemu.quit();
      // QEMU leaves the state in the active tables; the next snapshot removes it there.
      const store = openWritable(path);
      const image = await WritableQcow2.open(store);
      await image.save({ name: 'three', dateSeconds: 1, dateNanoseconds: 0, vmClock: 0n });
      await store.close();
      for (const each of [path, second]) expect(await checkImage(version, each)).toBe(cleanImage);
    } finally {
      await qemu.kill();
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
