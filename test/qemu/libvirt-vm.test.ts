/**
 * A real libvirt takes `vmferry vm` for an emulator: it probes its capabilities, starts a domain, saves, restores
 * and migrates it. A small script turns QEMU's command line into that of `vmferry vm`. Skipped where libvirt is not installed (install-libvirt.sh).
 */
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { Libvirt, lacksLibvirt } from './libvirt.ts';

const project = join(import.meta.dirname, '../..');

/**
 * What libvirt starts. For a probe it understands -qmp and -pidfile, and daemonizes when the monitor is there. The monitor of
 * a domain is a socket that it inherits.
 */
const emulator = (dir: string) => `#!/bin/sh
if [ "$1" = --version ]; then echo 'QEMU emulator version 9.0.0'; exit; fi
guest='--machine pc --memory 4M --workload write:rate=1M,working-set=1M,pattern=random'
while [ $# -gt 0 ]; do
  case "$1" in
    -qmp) qmp=\${2%%,*}; shift ;;
    -pidfile) pidfile=$2; shift ;;
    -chardev) case "$2" in socket,id=charmonitor,fd=*) fd=\${2#*fd=}; qmp=fd:\${fd%%,*} ;; esac; shift ;;
    -incoming) guest="--incoming $2"; shift ;;
    -uuid) uuid="--uuid $2"; shift ;;
  esac
  shift
done
vm="${dir}/node ${dir}/vmferry/dist/cli.js vm --qmp $qmp --paused $guest $uuid"
if [ -n "$fd" ]; then exec $vm 2>> ${dir}/emulator.log; fi
$vm < /dev/null > ${dir}/emulator.log 2>&1 &
echo $! > "$pidfile"
until [ -S "\${qmp#unix:}" ]; do sleep 0.05; kill -0 $! || exit 1; done
`;

const domain = (dir: string) => `<domain type='qemu'>
  <name>ferry</name>
  <memory unit='KiB'>4096</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>${dir}/emulator</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
`;

describe.skipIf(lacksLibvirt())('libvirt', () => {
  let libvirt: Libvirt;
  beforeAll(async () => {
    libvirt = await Libvirt.start();
    const inside = libvirt.inside;
    copyFileSync(process.execPath, join(libvirt.dir, 'node'));
    chmodSync(join(libvirt.dir, 'node'), 0o755);
    mkdirSync(join(libvirt.dir, 'vmferry/node_modules'), { recursive: true });
    cpSync(join(project, 'dist'), join(libvirt.dir, 'vmferry/dist'), { recursive: true });
    copyFileSync(join(project, 'package.json'), join(libvirt.dir, 'vmferry/package.json'));
    for (const name of ['commander', 'koffi', '@koromix']) {
      const modules = join('node_modules', name);
      cpSync(join(project, modules), join(libvirt.dir, 'vmferry', modules), { recursive: true });
    }
    writeFileSync(join(libvirt.dir, 'emulator'), emulator(inside), { mode: 0o755 });
    await libvirt.serve();
  });
  afterAll(() => libvirt?.stop());

  /** The RAM of the domain. */
  async function memory(virsh: (command: string) => Promise<string>, name: string): Promise<Buffer> {
    const filename = `${libvirt.inside}/${name}`;
    const given = { execute: 'pmemsave', arguments: { val: 0, size: 4 << 20, filename } };
    await virsh(`qemu-monitor-command ferry '${JSON.stringify(given)}'`);
    return readFileSync(join(libvirt.dir, name));
  }

  test('probes the capabilities of vmferry vm to the end', async () => {
    const asked = `domcapabilities --virttype qemu --arch x86_64 --machine pc --emulatorbin ${libvirt.inside}/emulator`;
    const xml = await libvirt.virsh(asked);
    expect(xml).toContain(`<path>${libvirt.inside}/emulator</path>`);
    expect(xml).toContain('<machine>pc</machine>');
    expect(xml).toContain('<arch>x86_64</arch>');
  });

  // Half a minute: VMFERRY_QEMU=full runs it.
  test.runIf(process.env.VMFERRY_QEMU === 'full')(
    'starts, saves and restores a domain whose emulator is vmferry vm',
    async () => {
      const { inside, dir } = libvirt;
      const virsh = (command: string) => libvirt.virsh(command);
      writeFileSync(join(dir, 'domain.xml'), domain(inside));
      await libvirt.virsh(`create ${inside}/domain.xml`);
      expect((await libvirt.virsh('domstate ferry')).trim()).toBe('running');
      await libvirt.virsh('suspend ferry');
      const sent = await memory(virsh, 'sent');
      await libvirt.virsh(`save ferry ${inside}/image`);
      expect((await libvirt.virsh('list --name')).trim()).toBe('');
      // The image is one of libvirt's, and the RAM in it is that of the VM.
      const { stdout } = await runCli(['inspect', '--json', '--hash', join(dir, 'image')]);
      expect(stdout).toContain(createHash('sha256').update(sent).digest('hex'));
      await libvirt.virsh(`restore ${inside}/image`);
      expect((await libvirt.virsh('domstate ferry')).trim()).toBe('paused');
      expect(await memory(virsh, 'restored')).toEqual(sent);
      await libvirt.virsh('resume ferry');
      expect((await libvirt.virsh('domstate ferry')).trim()).toBe('running');
      await libvirt.virsh('destroy ferry');
    },
  );

  test.runIf(process.env.VMFERRY_QEMU === 'full')('migrates a domain to another daemon, and back', async () => {
    const { inside, dir } = libvirt;
    const other = await libvirt.serveOther();
    const there = (command: string) => libvirt.run(`virsh -q -c '${other}' ${command}`);
    writeFileSync(join(dir, 'domain.xml'), domain(inside));
    await libvirt.virsh(`create ${inside}/domain.xml`);
    await libvirt.virsh(`migrate --live ferry '${other}' tcp://127.0.0.1`);
    expect((await libvirt.virsh('list --name')).trim()).toBe('');
    expect((await there('domstate ferry')).trim()).toBe('running');
    await there('suspend ferry');
    const sent = await memory(there, 'sent');
    await there('migrate --live ferry qemu:///system tcp://127.0.0.1');
    expect((await there('list --name')).trim()).toBe('');
    expect((await libvirt.virsh('domstate ferry')).trim()).toBe('paused');
    expect(await memory((command) => libvirt.virsh(command), 'received')).toEqual(sent);
    await libvirt.virsh('destroy ferry');
  });
});
