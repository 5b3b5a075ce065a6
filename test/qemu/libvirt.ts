/**
 * A real libvirt in a private tree (install-libvirt.sh) and its own namespaces: its daemon, QEMUs and mounts disappear
 * with the shell that holds them. It saves our tiny machine in every format it has.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hangGuardMs } from '../limits.ts';
import { guestPage, writeBios } from './guest.ts';
import { readTruth, type Truth } from './truth.ts';

export const saveFormats = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd', 'sparse'] as const;
export type SaveFormat = (typeof saveFormats)[number];

const root = join(process.env.VMFERRY_LIBVIRT_DIR || join(homedir(), '.cache/vmferry-libvirt'), 'root');
let reported = false;

/** Whether no libvirt can run here; prints that. With VMFERRY_REQUIRE_LIBVIRT=1 libvirt must be present. */
export function lacksLibvirt(): boolean {
  if (process.env.VMFERRY_REQUIRE_LIBVIRT === '1') return false;
  const reason = !existsSync(join(root, 'usr/sbin/libvirtd'))
    ? 'libvirt is not installed; run test/qemu/install-libvirt.sh'
    : process.getuid?.() !== 0
      ? 'libvirt runs in namespaces, which needs root'
      : undefined;
  if (reason !== undefined && !reported) console.warn(`skipped: ${reason}`);
  reported = true;
  return reason !== undefined;
}

export type SavedImage = {
  format: SaveFormat;
  file: string;
  truth: Truth;
  wasRunning: boolean;
  /** The version of the libvirt that saved, such as `11.3.0`. */
  libvirt: string;
};

const domainXml = (name: string, dir: string) => `<domain type='qemu'>
  <name>${name}</name>
  <uuid>9f4e1c55-7d4f-4c57-9c7f-0d7a30fbb9a1</uuid>
  <title>ferry &amp; quay</title>
  <memory unit='KiB'>2048</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type><loader type='rom'>${dir}/bios.bin</loader></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <serial type='unix'><source mode='bind' path='${dir}/guest'/></serial>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
`;

export class Libvirt {
  readonly #shell: ChildProcessWithoutNullStreams;
  /** The directory as libvirt sees it and as we see it. */
  readonly inside: string;
  readonly dir: string;
  #output = '';
  #wake = () => {};

  private constructor() {
    mkdirSync(join(root, 'tmp'), { recursive: true });
    this.dir = mkdtempSync(join(root, 'tmp/vmferry-'));
    this.inside = this.dir.slice(root.length);
    const mounts = [
      'proc proc',
      'sysfs sys',
      'tmpfs dev/shm',
      'devpts dev/pts',
      'tmpfs run',
      'tmpfs var/lib/libvirt/qemu',
    ]
      .map((mount) => mount.split(' '))
      .map(([type, at]) => `mount -t ${type} ${type} ${root}/${at}`)
      .join(' && ');
    const args = [
      '--mount',
      '--pid',
      '--net',
      '--fork',
      '--kill-child',
      'sh',
      '-c',
      `${mounts} && exec chroot ${root} sh`,
    ];
    this.#shell = spawn('unshare', args, { env: { PATH: process.env.PATH, HOME: this.inside } });
    for (const stream of [this.#shell.stdout, this.#shell.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text;
        this.#wake();
      });
    }
    this.#shell.on('close', () => {
      this.#output += '\n(the shell ended) @status 1\n';
      this.#wake();
    });
  }

  static async start(): Promise<Libvirt> {
    const libvirt = new Libvirt();
    try {
      writeBios(libvirt.dir);
      // A restarted daemon finds only the state of its own predecessor.
      await libvirt.run('mkdir -p /run/libvirt');
      return libvirt;
    } catch (error) {
      libvirt.stop();
      throw error;
    }
  }

  stop(): void {
    this.#shell.kill('SIGKILL');
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Runs a command in the tree and returns what it printed. @throws if it fails */
  async run(command: string, timeout = hangGuardMs): Promise<string> {
    this.#output = '';
    this.#shell.stdin.write(`{ ${command}\n} < /dev/null; echo "@status $?"\n`);
    for (const until = performance.now() + timeout; ; ) {
      const match = /@status (\d+)\n/.exec(this.#output);
      if (match !== null) {
        const said = this.#output.slice(0, match.index);
        if (match[1] !== '0') throw new Error(`${command}: ${said}`);
        return said;
      }
      const left = until - performance.now();
      if (left <= 0) throw new Error(`${command} did not end: ${this.#output}`);
      await Promise.race([sleep(left), new Promise<void>((resolve) => (this.#wake = resolve))]);
    }
  }

  virsh(command: string): Promise<string> {
    return this.run(`virsh -q -c qemu:///system ${command}`);
  }

  /** Starts the daemon, with `format` as the format of `virsh save`. */
  async serve(format: SaveFormat = 'raw'): Promise<void> {
    const settings = [
      'stdio_handler = "file"',
      'security_driver = "none"',
      'user = "root"',
      'group = "root"',
      'namespaces = []',
      'cgroup_controllers = []',
      'remember_owner = 0',
      `save_image_format = "${format}"`,
    ];
    writeFileSync(join(root, 'etc/libvirt/qemu.conf'), `${settings.join('\n')}\n`);
    await this.run(
      `[ -f /run/libvirtd.pid ] && kill $(cat /run/libvirtd.pid) && while [ -f /run/libvirtd.pid ]; do sleep 0.1; done; true`,
    );
    await this.run(`libvirtd --daemon --pid-file /run/libvirtd.pid > ${this.inside}/log 2>&1`);
    for (const until = performance.now() + hangGuardMs; ; await sleep(100)) {
      try {
        return void (await this.virsh('version'));
      } catch (error) {
        if (performance.now() < until) continue;
        throw new Error(`libvirtd: ${readFileSync(join(this.dir, 'log'), 'utf8')}`, { cause: error });
      }
    }
  }

  /** Starts the daemon of another host, on the same loopback. Returns its URI. */
  async serveOther(): Promise<string> {
    const sockets = `${this.inside}/other`;
    const settings = [`unix_sock_dir = "${sockets}"`, 'host_uuid = "5f3f1f7e-4d35-4f0e-8c9c-0c6a8f4a7c11"'];
    writeFileSync(join(this.dir, 'other.conf'), `${settings.join('\n')}\n`);
    const mounts = ['run', 'var/lib/libvirt/qemu', 'var/cache/libvirt'].map((at) => `mount -t tmpfs tmpfs /${at}`);
    const daemon = `libvirtd --daemon --config ${this.inside}/other.conf --pid-file /run/other.pid`;
    const start = ['hostname other', ...mounts, 'mkdir -p /run/libvirt', `exec ${daemon}`].join(' && ');
    await this.run(`ip link set lo up && mkdir -p ${sockets}`);
    await this.run(`unshare --mount --propagation unchanged --uts sh -c '${start}' 2>&1`);
    const uri = `qemu+unix:///system?socket=${sockets}/libvirt-sock`;
    for (const until = performance.now() + hangGuardMs; ; await sleep(100)) {
      try {
        await this.run(`virsh -q -c '${uri}' version`);
        return uri;
      } catch (error) {
        if (performance.now() > until) throw error;
      }
    }
  }

  /** Creates a domain, fills its RAM and saves it. The image and the truth get their own directory. */
  async save(format: SaveFormat, wasRunning: boolean): Promise<SavedImage> {
    await this.serve(format);
    const name = `ferry-${randomBytes(4).toString('hex')}`;
    writeFileSync(join(this.dir, 'domain.xml'), domainXml(name, this.inside));
    await this.virsh(`create ${this.inside}/domain.xml`);
    // The guest copies itself and waits for commands. It reports that to a serial port that has no listener here.
    await sleep(1000);
    await this.virsh(`suspend ${name}`);
    const addresses = await this.#addresses(name);
    fillRam(await findProcess(`guest=${name},`), addresses.get('pc.ram') as number);
    const folder = mkdtempSync(join(this.dir, `${format}-`));
    const truth = await this.#readRam(name, folder);
    if (wasRunning) await this.virsh(`resume ${name}`);
    await this.virsh(`save ${name} ${this.inside}/image`);
    const file = join(folder, 'image');
    renameSync(join(this.dir, 'image'), file);
    const libvirt = /library: libvirt (\S+)/.exec(await this.virsh('version'))?.[1] ?? '';
    return { format, file, truth, wasRunning, libvirt };
  }

  /**
   * Restores an image with libvirt, and ends the domain. Returns its RAM.
   * @throws with libvirt's error
   */
  async restore(image: Uint8Array): Promise<Truth> {
    writeFileSync(join(this.dir, 'restored'), image);
    await this.virsh(`restore ${this.inside}/restored --paused`);
    const restored = (await this.virsh('list --name')).trim();
    const truth = await this.#readRam(restored, mkdtempSync(join(this.dir, 'restored-')));
    for (const name of (await this.virsh('list --name')).split('\n').filter((line) => line.trim() !== '')) {
      await this.virsh(`destroy ${name.trim()}`);
    }
    return truth;
  }

  /** The XML that libvirt itself finds in an image. */
  savedXml(image: Uint8Array): Promise<string> {
    writeFileSync(join(this.dir, 'shown'), image);
    return this.virsh(`save-image-dumpxml ${this.inside}/shown`);
  }

  /** RAM of a domain that is not running. */
  async #readRam(name: string, folder: string): Promise<Truth> {
    const hmp = (line: string) => this.virsh(`qemu-monitor-command ${name} --hmp '${line}'`);
    const paused = {
      ...{ pid: await findProcess(`guest=${name},`), hmp },
      execute: async () => ({ running: false, status: 'paused' }),
    } as unknown as Parameters<typeof readTruth>[0];
    return readTruth(paused, folder, await this.#addresses(name));
  }

  /** Addresses of a domain's RAM blocks in the memory of its QEMU. */
  async #addresses(name: string): Promise<Map<string, number>> {
    const addresses = new Map<string, number>();
    const list = await this.virsh(`qemu-monitor-command ${name} --hmp 'info ramblock'`);
    for (const line of list.split('\n').slice(1)) {
      const [, idstr, address] = /^\s*(\S+)\s.*\s0x([0-9a-f]+)\s+r[ow]\s*$/.exec(line) ?? [];
      if (idstr !== undefined) addresses.set(idstr, Number.parseInt(address as string, 16));
    }
    return addresses;
  }
}

/** The pid, in our namespace, of the process with this text in its arguments. */
async function findProcess(text: string): Promise<number> {
  for (const until = performance.now() + hangGuardMs; performance.now() < until; await sleep(100)) {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      try {
        const argv = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
        if (argv[0]?.includes('qemu-system') && argv.some((arg) => arg.includes(text))) return Number(pid);
      } catch {
        // It ended in the meantime.
      }
    }
  }
  throw new Error(`found no process with ${text} in its arguments`);
}

/** Writes text, random and same-byte pages above the first MiB of a stopped guest. */
function fillRam(pid: number, address: number): void {
  const memory = openSync(`/proc/${pid}/mem`, 'r+');
  try {
    for (const [kind, first, count] of [
      ['text', 256, 12],
      ['same', 300, 12],
      ['random', 400, 8],
      ['random', 511, 1],
    ] as const) {
      for (let page = first; page < first + count; page++) {
        const bytes = guestPage(kind, page, 7);
        writeSync(memory, bytes, 0, bytes.length, address + page * 4096);
      }
    }
  } finally {
    closeSync(memory);
  }
}
