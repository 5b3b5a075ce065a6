/**
 * Snapshots inside qcow2 images, made by a running QEMU: QMP creates the image and saves the snapshots.
 */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hangGuardMs } from '../limits.ts';
import type { PageRange } from './guest.ts';
import { fillStripes, type Machine, pagesOfOurs, type Running, startMachine } from './machine.ts';
import type { Qemu } from './qemu.ts';
import { findAddresses, readTruth, type Truth } from './truth.ts';

export type ImageOptions = {
  /** `v2` is compat=0.10. */
  version?: 'v2' | 'v3';
  'cluster-size'?: number;
  'extended-l2'?: boolean;
};

export type SavevmOptions = Machine & {
  image?: ImageOptions;
  /** Bytes of the virtual disk. Default 1 MiB. */
  diskSize?: number;
  /** In order; RAM is filled again before each. */
  tags: readonly string[];
  /** Fills RAM before a snapshot; default: {@link fillStripes}, with another seed each time. */
  fill?: (running: Running, ours: PageRange, snapshot: number) => Promise<void>;
};

export type Savevm = {
  file: string;
  /** RAM at the time of each snapshot, by tag. */
  truths: Map<string, Truth>;
  qemu: string;
  args: readonly string[];
  dispose: () => void;
};

/** Waits for a job and dismisses it. @throws with its error */
async function finishJob(qemu: Qemu, id: string): Promise<void> {
  type Job = { id: string; status: string; error?: string };
  for (const until = performance.now() + hangGuardMs; ; await sleep(10)) {
    const job = (await qemu.execute<Job[]>('query-jobs')).find((each) => each.id === id);
    if (job?.status === 'concluded') {
      await qemu.execute('job-dismiss', { id });
      if (job.error !== undefined) throw new Error(`${id}: ${job.error}`);
      return;
    }
    if (performance.now() > until) throw new Error(`${id} is still ${job?.status}`);
  }
}

/** Creates a qcow2 image and adds it as the node `disk`. */
async function addImage(qemu: Qemu, file: string, size: number, image: ImageOptions): Promise<void> {
  const create = async (id: string, options: object) => {
    await qemu.execute('blockdev-create', { 'job-id': id, options });
    await finishJob(qemu, id);
  };
  await create('file', { driver: 'file', filename: file, size: 0 });
  await qemu.execute('blockdev-add', { driver: 'file', filename: file, 'node-name': 'disk-file' });
  await create('qcow2', { driver: 'qcow2', file: 'disk-file', size, ...image });
  await qemu.execute('blockdev-add', { driver: 'qcow2', file: 'disk-file', 'node-name': 'disk' });
}

/** Saves snapshots as the options say, and reads the truth of each. */
export async function savevm(options: SavevmOptions): Promise<Savevm> {
  const ours = pagesOfOurs(options);
  const { image = {}, diskSize = 1 << 20, tags, fill } = options;
  const running = await startMachine(options);
  const { qemu, guest } = running;
  const { dir } = qemu;
  try {
    const file = join(dir, 'disk.qcow2');
    await addImage(qemu, file, diskSize, image);
    const addresses = new Map<string, number>();
    const truths = new Map<string, Truth>();
    for (const [i, tag] of tags.entries()) {
      await (fill ?? ((each, range, snapshot) => fillStripes(each, range, 7 + snapshot)))(running, ours, i);
      if (i === 0) for (const [idstr, address] of await findAddresses(qemu)) addresses.set(idstr, address);
      await qemu.execute('stop');
      const folder = join(dir, `truth-${i}`);
      mkdirSync(folder);
      truths.set(tag, await readTruth(qemu, folder, addresses));
      await qemu.execute('snapshot-save', { 'job-id': `save${i}`, tag, vmstate: 'disk', devices: ['disk'] });
      await finishJob(qemu, `save${i}`);
      if (guest !== undefined) await qemu.execute('cont');
    }
    const version = await qemu.execute<{ qemu: Record<string, number>; package: string }>('query-version');
    await qemu.quit();
    for (const name of ['ram', 'bios.bin', 'trace', 'qmp', 'guest']) rmSync(join(dir, name), { force: true });
    if (!existsSync(file)) throw new Error('the image is gone');
    const { major, minor, micro } = version.qemu;
    return {
      file,
      truths,
      qemu: `${major}.${minor}.${micro} (${version.package})`,
      args: running.args.map((arg) => arg.replaceAll(`${dir}/`, '')),
      dispose: () => rmSync(dir, { recursive: true, force: true }),
    };
  } catch (error) {
    await qemu[Symbol.asyncDispose]();
    throw error;
  } finally {
    guest?.close();
  }
}
