/**
 * A destination of postcopy that behaves like a QEMU whose guest the test plays: it answers pings, asks for pages when the test
 * does, notes in which order pages come and through which line, and can lose its source and take another one.
 */
import type { Connection } from '../../src/io/connection.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { connectionPair } from '../../src/io/web-connection.ts';
import { loadKernelFor } from '../../src/kernel/load-kernel.ts';
import { PageKind } from '../../src/kernel/page-batch.ts';
import { LiveFlow, liveFlowArenaBytes } from '../../src/read/live-flow.ts';
import type { Command, FlowItem } from '../../src/vm/flow.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { readRecvBitmap } from '../../src/wire/postcopy.ts';
import { encodeReturnMessage, ReturnType } from '../../src/wire/return-path.ts';

/** A page that came. */
export interface Arrival {
  block: string;
  page: number;
  kind: 'data' | 'zero';
  /** `preempt`, or the main line. */
  line: 'main' | 'preempt';
}

interface Held {
  block: RamBlock;
  bytes: Uint8Array;
  present: Uint8Array;
}

export interface PostcopyTargetOptions {
  /** Called with each command before it is answered. What it throws ends the lines. */
  onCommand?: (command: Command) => Promise<void> | void;
}

/** A line with another name. */
const named = (line: Connection, name: string): Connection => ({
  ...{ name, size: undefined, canRead: true, canWrite: true, method: line.method },
  read: (target, position) => line.read(target, position),
  write: (bytes) => line.write(bytes),
  end: () => line.end(),
  destroy: () => line.destroy(),
  close: () => line.close(),
});

export class PostcopyTarget {
  readonly arrivals: Arrival[] = [];
  readonly commands: string[] = [];
  readonly blocks = new Map<string, Held>();
  /** Pages that came although they were there. */
  twice = 0;
  status: 'waiting' | 'running' | 'paused' | 'completed' = 'waiting';
  readonly #flow: LiveFlow;
  readonly #options: PostcopyTargetOptions;
  #main: Connection | undefined;
  #lines: Connection[] = [];
  #isRecovery = false;
  #wake: () => void = () => {};

  private constructor(flow: LiveFlow, options: PostcopyTargetOptions) {
    this.#flow = flow;
    this.#options = options;
  }

  static async make(options: PostcopyTargetOptions = {}): Promise<PostcopyTarget> {
    const kernel = await loadKernelFor([liveFlowArenaBytes(1)]);
    return new PostcopyTarget(new LiveFlow(kernel, { codecs: new NodeCodecs(), mostChannels: 1 }), options);
  }

  /** Connects a source: first its main line, then its preempt channel. */
  readonly connect = async (): Promise<Connection> => {
    const [here, there] = connectionPair();
    this.#lines.push(here);
    if (this.#main === undefined) void this.#read(named(here, 'main'));
    else this.#flow.addPreempt(named(here, 'preempt'));
    return there;
  };

  async #read(main: Connection): Promise<void> {
    this.#main = main;
    try {
      if (this.#isRecovery) await this.#flow.leaveLines();
      const items = this.#isRecovery ? this.#flow.recover(main) : this.#flow.read(main);
      for await (const item of items) await this.#take(item);
      this.status = 'completed';
      await this.#say({ type: ReturnType.shut, value: 0 });
    } catch {
      this.#break();
    }
    this.#wake();
  }

  /** Loses its source. */
  drop(): void {
    for (const line of this.#lines) line.destroy();
  }

  #break(): void {
    this.drop();
    this.status = 'paused';
    this.#isRecovery = true;
    this.#main = undefined;
    this.#lines = [];
  }

  async #take(item: FlowItem): Promise<void> {
    if (item.kind === 'block') {
      const { block } = item;
      const bytes = new Uint8Array(block.usedLength);
      this.blocks.set(block.idstr, { block, bytes, present: new Uint8Array(block.usedLength / 4096) });
    } else if (item.kind === 'discard') {
      this.#held(item.block).present.fill(0, item.firstPage, item.firstPage + item.pages);
    } else if (item.kind === 'pages') this.#takePages(item);
    else if (item.kind === 'command') await this.#takeCommand(item.command);
    this.#wake();
  }

  #takePages({ block, batch }: FlowItem & { kind: 'pages' }): void {
    const { bytes, present } = this.#held(block);
    const line = batch.origin.source === 'preempt' ? 'preempt' : 'main';
    for (let i = 0; i < batch.count; i++) {
      const page = batch.page[i] as number;
      const isData = batch.kind[i] === PageKind.data;
      if (present[page] === 1) this.twice++;
      present[page] = 1;
      const at = batch.data[i] as number;
      const content = isData
        ? this.#flow.kernel.bytes.subarray(at, at + block.pageSize)
        : new Uint8Array(block.pageSize);
      bytes.set(content, page * block.pageSize);
      this.arrivals.push({ block: block.idstr, page, kind: isData ? 'data' : 'zero', line });
    }
  }

  async #takeCommand(command: Command): Promise<void> {
    this.commands.push(command.name);
    await this.#options.onCommand?.(command);
    const { name, payload } = command;
    const value = payload.length < 4 ? 0 : new DataView(payload.buffer, payload.byteOffset).getUint32(0);
    if (name === 'PING') await this.#say({ type: ReturnType.pong, value });
    if (name === 'POSTCOPY_RUN') this.status = 'running';
    if (name === 'RECV_BITMAP') await this.#sayReceived(readRecvBitmap(payload) as string);
    if (name !== 'POSTCOPY_RESUME') return;
    this.status = 'running';
    await this.#say({ type: ReturnType.resumeAck, value: 1 });
  }

  async #sayReceived(block: string): Promise<void> {
    const { present } = this.blocks.get(block) as Held;
    const bits = new Uint8Array(Math.ceil(present.length / 64) * 8);
    for (const [page, isThere] of present.entries()) bits[page >> 3]! |= isThere << (page & 7);
    await this.#say({ type: ReturnType.recvBitmap, block }, bits);
  }

  /** The guest meets pages that are not there. */
  async ask(block: string, page: number, count = 1): Promise<void> {
    await this.#say({ type: ReturnType.reqPagesId, block, start: page * 4096, bytes: count * 4096 });
  }

  async #say(message: Parameters<typeof encodeReturnMessage>[1], bits?: Uint8Array): Promise<void> {
    const out = new ByteWriter();
    encodeReturnMessage(out, message, bits);
    await this.#main?.write(out.bytes().slice());
  }

  /** Resolves when something holds, which is looked at after everything that comes. */
  async until(test: () => boolean): Promise<void> {
    while (!test()) {
      await new Promise<void>((resolve) => {
        const before = this.#wake;
        this.#wake = () => {
          before();
          resolve();
        };
      });
    }
  }

  has(block: string, page: number): boolean {
    return this.blocks.get(block)?.present[page] === 1;
  }

  #held({ idstr }: RamBlock): Held {
    return this.blocks.get(idstr) as Held;
  }
}
