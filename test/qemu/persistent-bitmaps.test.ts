/** Persistent dirty bitmaps: QEMU keeps them in an image and vmferry loads them, and the other way round; after a crash, too. */
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { VmProcess } from '../support/vm-process.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { checkImage, cleanImage, qemuImg, qemuIo } from './qemu-img.ts';
import { lacksQemu } from './require.ts';

type Json = Record<string, unknown>;

interface Bitmaps {
  execute(command: string, given?: Json): Promise<unknown>;
}

/** The bitmaps of the node, without what only QEMU has. */
async function list(vm: Bitmaps): Promise<Json[]> {
  const nodes = (await vm.execute('query-named-block-nodes')) as Json[];
  return (nodes.find((node) => node['node-name'] === 'd0')?.['dirty-bitmaps'] ?? []) as Json[];
}

/** The bitmaps in the image, which may be in use. */
async function kept(image: string): Promise<unknown> {
  const { 'format-specific': specific } = JSON.parse(await qemuImg('10.0', 'info', '-U', '--output=json', image));
  return specific.data.bitmaps;
}

const bitmap = (name: string, recording: boolean, granularity: number, count: number) => ({
  ...{ name, recording, granularity, count, persistent: true, busy: false },
});

describe.skipIf(lacksQemu('7.2', '10.0')).each(qemuVersions)('with QEMU %s', (version) => {
  let image: string;
  beforeAll(async () => {
    image = join(Qemu.makeDir(), 'disk.qcow2');
    await qemuImg(version, 'create', '-q', '-f', 'qcow2', image, '64M');
  });
  const startQemu = () => {
    const blockdev = `driver=qcow2,node-name=d0,file.driver=file,file.filename=${image}`;
    return Qemu.start({ version, args: ['-machine', 'none', '-nodefaults', '-blockdev', blockdev] });
  };
  const startVm = () => VmProcess.start('--memory', '1M', '--drive', `id=d0,file=${image}`, '--compat', version);
  const add = (vm: Bitmaps, name: string, more: Json = {}) =>
    vm.execute('block-dirty-bitmap-add', { node: 'd0', name, persistent: true, ...more });

  test('what QEMU keeps, vmferry loads and keeps again', async () => {
    {
      await using qemu = await startQemu();
      await add(qemu, 'p');
      await add(qemu, 'off', { disabled: true, granularity: 4096 });
      await qemu.quit();
    }
    await qemuIo(version, image, 'write 1M 200k', 'write 60M 1k');
    {
      await using vm = await startVm();
      expect(await list(vm)).toEqual([bitmap('p', true, 65536, 5 * 65536), bitmap('off', false, 4096, 0)]);
      expect(await kept(image)).toEqual([
        { name: 'off', flags: ['in-use'], granularity: 4096 },
        { name: 'p', flags: ['in-use', 'auto'], granularity: 65536 },
      ]);
      await add(vm, 'ours', { granularity: 512, disabled: true });
      await vm.execute('block-dirty-bitmap-merge', { node: 'd0', target: 'ours', bitmaps: ['p'] });
      await vm.execute('quit');
      expect(await vm.ended).toBe(0);
    }
    expect(await checkImage(version, image)).toBe(cleanImage);
    expect(await kept(image)).toEqual([
      { name: 'off', flags: [], granularity: 4096 },
      { name: 'p', flags: ['auto'], granularity: 65536 },
      { name: 'ours', flags: [], granularity: 512 },
    ]);
    await using qemu = await startQemu();
    expect(await list(qemu)).toEqual([
      bitmap('ours', false, 512, 5 * 65536),
      bitmap('p', true, 65536, 5 * 65536),
      bitmap('off', false, 4096, 0),
    ]);
    await qemu.quit();
    expect(await checkImage(version, image)).toBe(cleanImage);
  });

  test('after a crash, both say that they are inconsistent, and both can remove them', async () => {
    {
      await using vm = await startVm();
      await vm.execute('query-status');
      vm.child.kill('SIGKILL');
      await vm.ended;
    }
    const inconsistent = (await (async () => {
      await using qemu = await startQemu();
      const found = await list(qemu);
      await qemu.kill();
      return found;
    })()) as Json[];
    await using vm = await startVm();
    expect(await list(vm)).toEqual(inconsistent);
    expect(inconsistent.map(({ inconsistent: is }) => is)).toEqual([true, true, true]);
    await expect(vm.execute('block-dirty-bitmap-clear', { node: 'd0', name: 'p' })).rejects.toThrow(
      "Bitmap 'p' is inconsistent and cannot be used",
    );
    for (const { name } of inconsistent) await vm.execute('block-dirty-bitmap-remove', { node: 'd0', name });
    expect(await kept(image)).toBeUndefined();
    await vm.execute('quit');
    expect(await vm.ended).toBe(0);
    expect(await checkImage(version, image)).toBe(cleanImage);
  });
});
