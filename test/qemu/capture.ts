/**
 * Captures: a real QEMU, filled and dirtied in known ways, saved by one route, with the truth of its RAM beside it.
 */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Collector } from './collect.ts';
import type { PageRange } from './guest.ts';
import {
  fillStripes,
  type Machine,
  type MachineKind,
  pagesOfOurs,
  type Running,
  startDestination,
  startMachine,
} from './machine.ts';
import type { MigrationInfo, Qemu, QemuVersion } from './qemu.ts';
import { type Channel, Recorder } from './record.ts';
import { findAddresses, readTruth, type Truth } from './truth.ts';
import { dirtyMixed, migrateInPasses, type Workload } from './workload.ts';

/**
 * exec        a plain stream through `cat`
 * file        a plain stream that QEMU writes itself (10.0)
 * mapped-ram  pages at fixed offsets (10.0)
 * socket      to a real destination, recorded on the way: one file per connection and direction
 * multifd     to a listener of ours, with the capability multifd: the main channel and one file per channel
 */
export type Route = 'exec' | 'file' | 'mapped-ram' | 'socket' | 'multifd';

export type CaptureOptions = Machine & {
  route: Route;
  /** Where in the file it starts (file, mapped-ram). */
  offset?: number;
  capabilities?: readonly string[];
  parameters?: Record<string, unknown>;
  /** Fills RAM; default: {@link fillStripes}. */
  fill?: (running: Running, ours: PageRange) => Promise<void>;
  /** What the guest does meanwhile; default: nothing. In a background snapshot it begins when the guest runs again. */
  workload?: Workload;
  /** The guest runs at the destination as soon as it can, and asks for its pages: the destination's RAM is no truth then. */
  destinationRuns?: boolean;
  /** So many times the connection breaks in postcopy, and the migration is recovered. */
  breaks?: number;
};

export type Capture = {
  version: QemuVersion;
  /** Version and package, as QEMU says them. */
  qemu: string;
  machine: MachineKind;
  route: Route;
  /** What QEMU wrote; with sockets, the (last) main channel. */
  file: string;
  /** With multifd, its channels in the order they were made. */
  multifdFiles: readonly string[];
  offset?: number;
  /** With sockets, every connection in the order it was made; after a break, those of the recovery follow. */
  channels?: readonly Channel[];
  /** What belongs to the file beside it, as `open` takes it. */
  parts?: { resumeOf: string[]; preempt: string[]; returnPath: string[] };
  /** By idstr, the bytes of each RAM block. */
  truth: Truth;
  /** With sockets, the same of the destination, which has to be equal. */
  destinationTruth?: Truth;
  usedCapabilities: readonly string[];
  parameters: Record<string, unknown>;
  /** The last query-migrate of the source. */
  info: MigrationInfo;
  /** The arguments of the source, without its private directory. */
  args: readonly string[];
  options: CaptureOptions;
  /** Removes the files. */
  dispose: () => void;
};

/** Saves a QEMU as the options say and takes the truth of it. */
export async function capture(options: CaptureOptions): Promise<Capture> {
  const ours = pagesOfOurs(options);
  const { route, offset, workload, fill = fillStripes, parameters = {} } = options;
  const ofRoute = route === 'mapped-ram' || route === 'multifd' ? [route] : [];
  const capabilities = [...ofRoute, ...(options.capabilities ?? [])];
  const running = await startMachine(options);
  const { qemu, guest } = running;
  const { dir } = qemu;
  let destination: Qemu | undefined;
  let recorder: Recorder | undefined;
  let collector: Collector | undefined;
  try {
    await fill(running, ours);
    const said = await versionOf(qemu);
    const addresses = await findAddresses(qemu);
    // A background snapshot is of the moment it begins; the guest does nothing yet then.
    const snapshot = capabilities.includes('background-snapshot');
    let truth: Truth | undefined;
    if (snapshot) {
      await qemu.execute('stop');
      truth = await readTruth(qemu, dir, addresses);
      await qemu.execute('cont');
    }

    const file = join(dir, 'capture');
    let uri = `file:${file}${offset ? `,offset=${offset}` : ''}`;
    if (route === 'exec') uri = `exec:cat > '${file}.part' && mv '${file}.part' '${file}'`;
    if (route === 'socket') {
      const path = join(dir, 'destination');
      destination = await startDestination(options, options.destinationRuns);
      await destination.setCapabilities(capabilities);
      await destination.setParameters(parameters);
      await destination.execute('migrate-incoming', { uri: `unix:${path}` });
      recorder = await Recorder.start(dir, path, options.breaks ? 300_000 : undefined);
      uri = recorder.uri;
    }
    if (route === 'multifd') {
      collector = await Collector.start(dir);
      uri = collector.uri;
    }

    await qemu.setCapabilities(capabilities);
    let info: MigrationInfo;
    let breaks = options.breaks ?? 0;
    const breakConnection = async (now: MigrationInfo) => {
      if (breaks === 0 || !destination || !recorder || !now.ram?.['postcopy-bytes']) return;
      // The relay is slow: what the source has sent need not have arrived.
      if ((await destination.queryMigrate()).status !== 'postcopy-active') return;
      await sleep(200);
      await recover(qemu, destination, recorder, join(dir, `recovery-${breaks--}`));
    };
    if (workload && guest && !snapshot) {
      info = await migrateInPasses(qemu, guest, uri, workload, ours, parameters, breakConnection);
    } else {
      await qemu.setParameters({ 'max-bandwidth': 0, ...parameters });
      const from = qemu.events.length;
      await qemu.execute('migrate', { uri });
      if (snapshot && workload && guest) {
        await qemu.event('RESUME', { from });
        for (let pass = 1; pass <= workload.passes; pass++) await (workload.dirty ?? dirtyMixed)(guest, pass, ours);
      }
      info = await qemu.waitForMigration();
    }
    await destination?.waitForMigration();
    await recorder?.stop();
    const collected = await collector?.finish();
    while (route === 'exec' && !existsSync(file)) await sleep(10);

    truth ??= await readTruth(qemu, dir, addresses);
    let destinationTruth: Truth | undefined;
    if (destination && options.destinationRuns !== true) {
      const there = join(dir, 'there');
      mkdirSync(there);
      destinationTruth = await readTruth(destination, there, await findAddresses(destination));
    }
    const postcopy = capabilities.includes('postcopy-ram');
    const mains = recorder && (postcopy ? recorder.channels : recorder.channels.slice(0, 1));
    const parts = mains && sortChannels(mains, capabilities.includes('postcopy-preempt'));
    await qemu.quit();
    for (const name of ['ram', 'boot.img', 'bios.bin', 'trace', 'qmp', 'guest'])
      rmSync(join(dir, name), { force: true });
    return {
      version: options.version,
      qemu: said,
      machine: options.machine,
      route,
      file: parts?.file ?? collected?.main ?? file,
      multifdFiles: collected?.channels ?? [],
      ...(offset === undefined ? {} : { offset }),
      ...(recorder ? { channels: recorder.channels } : {}),
      ...(parts && parts.resumeOf.length + parts.preempt.length > 0 ? { parts } : {}),
      truth,
      ...(destinationTruth ? { destinationTruth } : {}),
      usedCapabilities: capabilities,
      parameters,
      info,
      args: running.args.map((arg) => arg.replaceAll(`${dir}/`, '')),
      options,
      dispose: () => rmSync(dir, { recursive: true, force: true }),
    };
  } catch (error) {
    await recorder?.stop().catch(() => {});
    collector?.abandon();
    await qemu[Symbol.asyncDispose]();
    throw error;
  } finally {
    guest?.close();
    await destination?.[Symbol.asyncDispose]();
  }
}

/** The main channels, of which the last is the file, and with preemption each one's preempt channel after it. */
function sortChannels(channels: readonly Channel[], hasPreempt: boolean) {
  const isMain = (index: number) => !hasPreempt || index % 2 === 0;
  const main = channels.filter((_, i) => isMain(i));
  return {
    file: main.at(-1)!.file,
    resumeOf: main.slice(0, -1).map(({ file }) => file),
    preempt: channels.filter((_, i) => !isMain(i)).map(({ file }) => file),
    returnPath: main.map(({ returnFile }) => returnFile),
  };
}

/** Breaks the connection of a migration in postcopy and has both sides go on over a new one, through the recorder. */
async function recover(source: Qemu, destination: Qemu, recorder: Recorder, path: string): Promise<void> {
  recorder.cut(path);
  await source.waitForStatus('postcopy-paused');
  await destination.waitForStatus('postcopy-paused');
  await destination.execute('migrate-recover', { uri: `unix:${path}` });
  await source.execute('migrate', { uri: recorder.uri, resume: true });
}

/** Version and package, as QEMU says them. */
export async function versionOf(qemu: Qemu): Promise<string> {
  type Version = { qemu: { major: number; minor: number; micro: number }; package: string };
  const { qemu: number, package: name } = await qemu.execute<Version>('query-version');
  return `${number.major}.${number.minor}.${number.micro} (${name})`;
}
