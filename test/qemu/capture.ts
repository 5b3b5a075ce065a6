/**
 * Captures: a real QEMU, filled and dirtied in known ways, is saved by one route, together with the truth of its RAM.
 */
import { mkdirSync, rmSync } from 'node:fs';
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
import { waitForFile } from './wait-until.ts';
import { dirtyMixed, migrateInPasses, type Workload } from './workload.ts';

/**
 * exec        a plain stream through `cat`
 * file        a plain stream that QEMU writes itself (10.0)
 * mapped-ram  pages at fixed offsets (10.0)
 * socket      to a real destination, recorded in between: one file per connection and direction
 * multifd     to our listener, with the capability multifd: the main channel and one file per channel
 */
export type Route = 'exec' | 'file' | 'mapped-ram' | 'socket' | 'multifd';

export type CaptureOptions = Machine & {
  route: Route;
  /** Offset in the file at which the stream starts (file, mapped-ram). */
  offset?: number;
  capabilities?: readonly string[];
  parameters?: Record<string, unknown>;
  /** Fills RAM; default: {@link fillStripes}. */
  fill?: (running: Running, ours: PageRange) => Promise<void>;
  /** What the guest does meanwhile; default: nothing. In a background snapshot it starts when the guest resumes. */
  workload?: Workload;
  /** The guest runs at the destination at once and requests its pages, so the destination's RAM is not a truth. */
  destinationRuns?: boolean;
  /** How often the connection breaks in postcopy, with a recovery after each break. */
  breaks?: number;
};

export type Capture = {
  version: QemuVersion;
  /** Version and package, as QEMU reports them. */
  qemu: string;
  machine: MachineKind;
  route: Route;
  /** The file that QEMU wrote; with sockets, the last main channel. */
  file: string;
  /** With multifd, its channels in the order of their connections. */
  multifdFiles: readonly string[];
  offset?: number;
  /** With sockets, every connection in order; after a break, those of the recovery follow. */
  channels?: readonly Channel[];
  /** The other files of the capture, as `open` takes them. */
  parts?: { resumeOf: string[]; preempt: string[]; returnPath: string[] };
  /** By idstr, the bytes of each RAM block. */
  truth: Truth;
  /** With sockets, the same for the destination; it must be equal. */
  destinationTruth?: Truth;
  usedCapabilities: readonly string[];
  parameters: Record<string, unknown>;
  /** The last query-migrate answer of the source. */
  info: MigrationInfo;
  /** The arguments of the source, without its private directory. */
  args: readonly string[];
  options: CaptureOptions;
  /** Removes the files. */
  dispose: () => void;
};

/** Saves a QEMU as the options say and reads its truth. */
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
    // A background snapshot shows the moment at which it begins; the guest does nothing before that.
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
      // The relay is slow, so the data that the source has sent may not have arrived.
      if ((await destination.queryMigrate()).status !== 'postcopy-active') return;
      // Lets some pages pass, so that the break comes in the middle: nothing reports that a page has arrived.
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
    if (route === 'exec') await waitForFile(file);

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

/** The main channels, the last of which is the file, and with preemption the preempt channel after each. */
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

/** Breaks the connection of a migration in postcopy; both sides then continue over a new one through the recorder. */
async function recover(source: Qemu, destination: Qemu, recorder: Recorder, path: string): Promise<void> {
  recorder.cut(path);
  await source.waitForStatus('postcopy-paused');
  await destination.waitForStatus('postcopy-paused');
  await destination.execute('migrate-recover', { uri: `unix:${path}` });
  await source.execute('migrate', { uri: recorder.uri, resume: true });
}

/** Version and package, as QEMU reports them. */
export async function versionOf(qemu: Qemu): Promise<string> {
  type Version = { qemu: { major: number; minor: number; micro: number }; package: string };
  const { qemu: number, package: name } = await qemu.execute<Version>('query-version');
  return `${number.major}.${number.minor}.${number.micro} (${name})`;
}
