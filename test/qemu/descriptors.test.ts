/** Descriptors that clients pass: real QEMUs and `vmferry vm` give the same answers, and close the same of them. */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { heldBy, playDescriptors } from '../support/descriptor-script.ts';
import { VmProcess } from '../support/vm-process.ts';
import { Qemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

async function play(pid: number, dir: string, first: string, second: string): Promise<unknown[]> {
  const [one, two] = [join(dir, 'one'), join(dir, 'two')];
  writeFileSync(one, '');
  const [reading, writing] = [openSync(one, 'r'), openSync(two, 'w')];
  try {
    return await playDescriptors({ first, second, reading, writing, held: () => heldBy(pid, [one, two]) });
  } finally {
    closeSync(reading);
    closeSync(writing);
  }
}

describe.each(qemuVersions)('QEMU %s', (version) => {
  test.skipIf(lacksQemu(version))('is passed descriptors as vmferry is', async () => {
    const dir = Qemu.makeDir();
    const sockets = [join(dir, 'first'), join(dir, 'second')] as const;
    const monitors = sockets.flatMap((path) => ['-qmp', `unix:${path},server=on,wait=off`]);
    const args = ['-machine', 'none', '-nodefaults', ...monitors];
    await using qemu = await Qemu.start({ version, args, dir });
    // Before 9.1, sets go when all clients have gone: that of the test, too.
    qemu.disconnect();
    const truth = await play(qemu.child.pid as number, dir, ...sockets);
    await using vm = await VmProcess.startAlone('--compat', version);
    expect(await play(vm.child.pid as number, vm.dir, vm.socket, vm.second)).toEqual(truth);
  });
});
