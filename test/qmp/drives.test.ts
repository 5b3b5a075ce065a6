/** Jobs and disks answer as real QEMU 7.2 and 10.0 do (test/fixtures/qmp/drives). */
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { BlockNode, BlockNodes } from '../../src/migrate/block-node.ts';
import { blockHandlers } from '../../src/qmp/block/block-handlers.ts';
import { Jobs } from '../../src/qmp/block/jobs.ts';
import { type SnapshotVm, snapshotHandlers } from '../../src/qmp/block/snapshot-jobs.ts';
import { parseJson } from '../../src/qmp/json-reader.ts';
import type { QmpServer } from '../../src/qmp/server.ts';
import { schemaOf } from '../../src/schema/qapi/schema.ts';
import { driveImages, driveTranscripts, settled, startsJob } from './drive-transcript.ts';
import { settingsServer } from './settings-server.ts';
import { readTranscript, recordedReleases } from './transcript.ts';

/** Where commands come from here. */
const nobody = { monitor: {}, takeDescriptor: () => undefined };

type Release = (typeof recordedReleases)[number];

/** Nodes of the images that the transcripts have. */
async function makeNodes(): Promise<BlockNodes> {
  const list: BlockNode[] = [];
  for (const [id, bytes] of driveImages()) {
    const store = new MemoryFile(id, bytes);
    list.push(await BlockNode.open({ id, path: `/images/${id}`, store, allocatedBytes: () => store.storedBytes }));
  }
  return new BlockNodes(list);
}

/** A VM whose state is a text, and whose server has these commands. */
class TextVm implements SnapshotVm {
  state = 'the state';
  /** Errors that the next calls throw. */
  refused: string | undefined;
  fault: Error | undefined;
  isRunning = true;
  #wasRunning = true;
  readonly nodes: BlockNodes;
  readonly jobs: Jobs;
  readonly server: QmpServer;

  constructor(nodes: BlockNodes, release: Release) {
    this.nodes = nodes;
    this.jobs = new Jobs((event, data) => this.server.emit(event, data));
    this.server = settingsServer(release, {
      ...this.jobs.handlers,
      ...snapshotHandlers(this, this.jobs),
      ...blockHandlers(nodes, schemaOf(release)),
      cont: () => this.turn(true),
    });
  }

  areDisksInactive = false;

  turn(isOn: boolean): void {
    if (this.isRunning !== isOn) this.server.emit(isOn ? 'RESUME' : 'STOP');
    this.isRunning = isOn;
  }

  refusal(): string | undefined {
    return this.refused;
  }

  async stop(): Promise<void> {
    this.#wasRunning = this.isRunning;
    this.turn(false);
  }

  restore(): void {
    this.turn(this.#wasRunning);
  }

  async save(sink: Parameters<SnapshotVm['save']>[0]): Promise<void> {
    await sink.write(new TextEncoder().encode(this.state));
    if (this.fault !== undefined) throw this.fault;
  }

  async load(source: Parameters<SnapshotVm['load']>[0]): Promise<void> {
    const bytes = new Uint8Array(source.size ?? 0);
    await source.read(bytes, 0);
    this.state = new TextDecoder().decode(bytes);
  }

  vmClock(): bigint {
    return 12_000_000_034n;
  }

  now(): number {
    return 1_700_000_000_123.25;
  }

  /** Sends a command, and waits until its job has ended. Returns all that came. */
  async send(text: string): Promise<string[]> {
    const lines: string[] = [];
    const session = this.server.connect((line) => lines.push(line.trimEnd()));
    lines.length = 0;
    if (!text.includes('qmp_capabilities')) await session.receive(bytesOf('{"execute": "qmp_capabilities"}'));
    lines.length = 0;
    await session.receive(bytesOf(`${text}\n`));
    if (startsJob(text)) await this.jobs.idle();
    this.server.disconnect(session);
    return lines;
  }

  async run(execute: string, given: object): Promise<void> {
    await this.send(JSON.stringify({ execute, arguments: given }).replace('":', '": '));
    await this.jobs.idle();
  }

  errorOf(id: string): string | undefined {
    const list = this.jobs.handlers['query-jobs']?.({}, nobody) as { id: string; error?: string }[];
    return list.find((job) => job.id === id)?.error;
  }
}

const bytesOf = (text: string) => new TextEncoder().encode(text);

describe.each(recordedReleases)('as QEMU %s', (release) => {
  it.each(driveTranscripts)('%s', async (name) => {
    const vm = new TextVm(await makeNodes(), release);
    for (const { text, answers } of readTranscript(name)) {
      const lines = settled(await vm.send(text));
      const read = (line: string) => parseJson(line);
      expect({ sent: text, answers: lines.map(read) }).toEqual({ sent: text, answers: answers[release].map(read) });
    }
  });
});

describe('a snapshot job', () => {
  const makeVm = async () => new TextVm(await makeNodes(), '10.0');
  const both = { vmstate: 'disk0', devices: ['disk0', 'disk1'] };

  it('gives all disks the same date and clock, and only one of them the state', async () => {
    const vm = await makeVm();
    await vm.run('snapshot-save', { 'job-id': 's', tag: 'a', ...both });
    const [first, second] = vm.nodes.list.map(({ image }) => image?.find('a'));
    const made = { dateSeconds: 1_700_000_000, dateNanoseconds: 123_250_000, vmClock: 12_000_000_034n };
    expect(first).toMatchObject({ ...made, vmStateSize: 9 });
    expect(second).toMatchObject({ ...made, vmStateSize: 0 });
    vm.state = 'another one';
    await vm.run('snapshot-load', { 'job-id': 'l', tag: 'a', ...both });
    expect([vm.errorOf('l'), vm.state, vm.isRunning]).toEqual([undefined, 'the state', true]);
  });

  it('is refused while a migration runs, after its disks were looked at and the guest was stopped', async () => {
    const vm = await makeVm();
    vm.refused = "There's a migration process in progress";
    const save = (id: string, device: string) =>
      `{"execute": "snapshot-save", "arguments": {"job-id": "${id}", "tag": "a", "vmstate": "disk0", "devices": ["${device}"]}}`;
    const turns = (lines: readonly string[]) =>
      lines.flatMap((line) => /"event": "(STOP|RESUME)"/.exec(line)?.[1] ?? []);
    expect(turns(await vm.send(save('n', 'nope')))).toEqual([]);
    expect(vm.errorOf('n')).toBe("No block device node 'nope'");
    expect(turns(await vm.send(save('s', 'disk0')))).toEqual(['STOP', 'RESUME']);
    expect(vm.errorOf('s')).toBe("There's a migration process in progress");
  });

  it('needs disks that are its own: not before the VM has arrived, and not after it has left', async () => {
    const vm = await makeVm();
    vm.areDisksInactive = true;
    for (const command of ['snapshot-save', 'snapshot-load'])
      await vm.run(command, { 'job-id': command, tag: 'a', ...both });
    await vm.run('snapshot-delete', { 'job-id': 'snapshot-delete', tag: 'a', devices: both.devices });
    for (const job of ['snapshot-save', 'snapshot-load', 'snapshot-delete']) {
      expect(vm.errorOf(job)).toBe("Device 'disk0' is writable but does not support snapshots");
    }
  });

  it('leaves no snapshot if the state cannot be written, and lets the guest run on', async () => {
    const vm = await makeVm();
    vm.fault = new Error('no space');
    await vm.run('snapshot-save', { 'job-id': 's', tag: 'a', ...both });
    expect(vm.errorOf('s')).toBe('Error while writing VM state: no space');
    expect(vm.isRunning).toBe(true);
    expect(vm.nodes.list.map(({ image }) => image?.snapshots ?? [])).toEqual([[], [], []]);
  });

  it('that fails at the second disk takes the snapshot of the first one back', async () => {
    const vm = await makeVm();
    const second = vm.nodes.get('disk1')?.store as MemoryFile;
    // A cluster of the disk that counts as free.
    second.write(new Uint8Array(2), 2 * 512 + 2 * 7);
    await vm.run('snapshot-save', { 'job-id': 's', tag: 'a', ...both });
    expect(vm.errorOf('s')).toMatch(/^Could not create snapshot 'a' on 'disk1': .*the image is damaged/);
    expect(vm.nodes.get('disk0')?.image?.snapshots).toEqual([]);
  });

  it('can be cancelled while it writes, and takes no other verb', async () => {
    const vm = await makeVm();
    const { handlers } = vm.jobs;
    let cancel = () => {};
    vm.save = async (sink) => {
      cancel();
      await sink.write(bytesOf('more'));
    };
    cancel = () => {
      for (const verb of ['complete', 'finalize', 'dismiss']) {
        const message = `Job 's' in state 'running' cannot accept command verb '${verb}'`;
        expect(() => handlers[`job-${verb}`]?.({ id: 's' }, nobody)).toThrow(message);
      }
      handlers['job-pause']?.({ id: 's' }, nobody);
      expect(() => handlers['job-pause']?.({ id: 's' }, nobody)).toThrow('Job is already paused');
      handlers['job-resume']?.({ id: 's' }, nobody);
      handlers['job-cancel']?.({ id: 's' }, nobody);
    };
    await vm.run('snapshot-save', { 'job-id': 's', tag: 'a', ...both });
    expect(vm.errorOf('s')).toBe('Operation canceled');
    expect(vm.nodes.get('disk0')?.image?.snapshots).toEqual([]);
  });

  it('runs after the one before it; all are dismissed at the end, newest first', async () => {
    const vm = await makeVm();
    const events: string[] = [];
    const emit = vm.server.emit.bind(vm.server);
    vm.server.emit = (name, data) => {
      events.push(`${name} ${(data as { id?: string; status?: string })?.id} ${(data as { status?: string })?.status}`);
      emit(name, data);
    };
    vm.jobs.start('snapshot-delete', 'one', async () => {});
    vm.jobs.start('snapshot-delete', 'two', async () => {});
    await vm.jobs.idle();
    vm.jobs.dismissAll();
    const of = (id: string, ...states: string[]) => states.map((state) => `JOB_STATUS_CHANGE ${id} ${state}`);
    expect(events).toEqual([
      ...[...of('one', 'created', 'running'), ...of('two', 'created', 'running')],
      ...[...of('one', 'waiting', 'pending', 'concluded'), ...of('two', 'waiting', 'pending', 'concluded')],
      ...[...of('two', 'null'), ...of('one', 'null')],
    ]);
  });
});
