/**
 * The primary side of COLO: its guest runs, and every x-checkpoint-delay the secondary gets what has changed (colo-line.ts).
 *
 *     ready ──→ running ── delay, or a new delay ──→ checkpoint ──→ running ...
 *                   └── the line breaks ──→ COLO_EXIT error; the guest stays here until somebody says so
 *                   └── x-colo-lost-heartbeat ──→ the end: the guest goes on alone
 */
import type { Clock } from '../io/clock.ts';
import type { Connection } from '../io/connection.ts';
import type { Guest } from '../vm/guest.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { encodeFooter, encodeSectionHead } from '../wire/section.ts';
import type { Passes } from '../write/passes.ts';
import type { StreamWriter } from '../write/stream-writer.ts';
import { ColoMessage, ColoReader, coloMessage } from './colo-line.ts';

/** What COLO asks of the VM at the primary side. */
export interface ColoPrimaryHost {
  /** ms between two checkpoints. Read anew for each. */
  delay(): number;
  /** Stops the guest for a checkpoint. */
  stop(): Promise<void>;
  /** Lets it run again. */
  run(): void;
  /** The line broke. */
  onError(error: unknown): void;
  /** Called once, with what controls COLO. */
  onStart(control: ColoControl): void;
}

/** Controls COLO at the primary side. */
export interface ColoControl {
  /** Begins a checkpoint now. */
  checkpoint(): void;
  /** Breaks the line, which is noticed at the next checkpoint. */
  break(): void;
  /** Ends COLO. */
  end(): void;
}

export interface ColoPrimaryOptions {
  host: ColoPrimaryHost;
  guest: Guest;
  passes: Passes;
  writer: StreamWriter;
  line: Connection;
  /** A dirty sync. */
  sync: () => Promise<void>;
  /** Begins to write after the end of the stream. */
  reopen: () => Promise<void>;
  clock: Clock;
  /** Ends it, because the migration was given up. */
  signal: AbortSignal;
}

export class ColoPrimary {
  readonly #options: ColoPrimaryOptions;
  readonly #reader: ColoReader;
  readonly #ended = new AbortController();
  #wake: () => void = () => {};

  constructor(options: ColoPrimaryOptions) {
    this.#options = options;
    this.#reader = new ColoReader((target, position) => options.line.read(target, position));
  }

  /** Makes checkpoints until {@link ColoControl.end} is called. The caller ends the line then. Whatever breaks is told to the host. */
  async run(): Promise<void> {
    const { host, line, signal } = this.#options;
    const ended = new Promise<void>((resolve) => {
      this.#ended.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    const abandoned = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    host.onStart({
      checkpoint: () => this.#wake(),
      break: () => line.destroy(),
      end: () => this.#ended.abort(new Error('COLO has ended')),
    });
    void this.#checkpoints().catch((error) => {
      if (!this.#ended.signal.aborted && !signal.aborted) host.onError(error);
    });
    await Promise.race([ended, abandoned]);
  }

  async #checkpoints(): Promise<void> {
    const { host, clock } = this.#options;
    await this.#reader.expect(ColoMessage.checkpointReady);
    host.run();
    for (;;) {
      const start = clock.now();
      await this.#pause(start + host.delay() - clock.now());
      this.#ended.signal.throwIfAborted();
      await this.#checkpoint();
    }
  }

  /** Waits for the next checkpoint. */
  async #pause(ms: number): Promise<void> {
    const woken = new AbortController();
    const wake = () => woken.abort();
    this.#wake = wake;
    this.#ended.signal.addEventListener('abort', wake, { once: true });
    try {
      if (ms > 0) await this.#options.clock.sleep(ms, woken.signal).catch(() => {});
    } finally {
      this.#ended.signal.removeEventListener('abort', wake);
      this.#wake = () => {};
    }
  }

  async #checkpoint(): Promise<void> {
    const { host, writer, passes, sync, reopen, guest } = this.#options;
    await reopen();
    await this.#say(ColoMessage.checkpointRequest);
    await this.#reader.expect(ColoMessage.checkpointReply);
    await host.stop();
    await writer.raw(coloMessage(ColoMessage.vmstateSend));
    await sync();
    await passes.sendLastPages(false);
    await writer.raw(new Uint8Array(1));
    const { devices } = await guest.saveDevices();
    const out = new ByteWriter();
    for (const device of devices) {
      encodeSectionHead(out, device);
      out.raw(device.data);
      if (writer.footers) encodeFooter(out, device.id);
    }
    out.u8(0);
    await writer.raw(new ByteWriter().u32(ColoMessage.vmstateSize).u64(out.length).bytes());
    await writer.raw(out.bytes());
    await writer.flush();
    await this.#reader.expect(ColoMessage.vmstateReceived);
    await this.#reader.expect(ColoMessage.vmstateLoaded);
    if (!this.#ended.signal.aborted) host.run();
  }

  async #say(message: number): Promise<void> {
    const { writer } = this.#options;
    await writer.raw(coloMessage(message));
    await writer.flush();
  }
}
