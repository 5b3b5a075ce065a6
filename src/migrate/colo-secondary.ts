/**
 * The secondary side of COLO: its guest runs, too, and becomes what the primary's is at each checkpoint (colo-line.ts).
 *
 *     ready ──→ running ── request ──→ stopped ── pages to a cache, devices ──→ all of it at once ──→ running ...
 *                   └── the line breaks ──→ COLO_EXIT error; the guest stays as it is until somebody says so
 *                   └── x-colo-lost-heartbeat ──→ the end: this guest takes over
 *
 * What the cache has is not the guest's before it is complete, so a line that breaks within a checkpoint costs nothing. A
 * checkpoint that is becoming the guest's is not given up: this side takes over afterwards.
 */
import { type ColoLine, ColoMessage, ColoReader, coloMessage } from './colo-line.ts';
import { type CheckpointCache, CheckpointPages } from './colo-pages.ts';

/** What COLO asks of the VM at the secondary side. */
export interface ColoSecondaryHost {
  cache: CheckpointCache;
  stop(): Promise<void>;
  run(): void;
  /** The line broke. */
  onError(error: unknown): void;
}

export class ColoSecondary {
  readonly #line: ColoLine;
  readonly #host: ColoSecondaryHost;
  #isOver = false;
  #loading: Promise<void> | undefined;

  constructor(line: ColoLine, host: ColoSecondaryHost) {
    this.#line = line;
    this.#host = host;
  }

  /** Whether a checkpoint is becoming the guest's. */
  get isLoading(): boolean {
    return this.#loading !== undefined;
  }

  /** Begins to take checkpoints. Whatever breaks is told to the host. */
  start(): void {
    void this.#takeCheckpoints().catch((error) => {
      if (!this.#isOver) this.#host.onError(error);
    });
  }

  /** Ends it. When the promise resolves, the guest is that of the last checkpoint. */
  async end(): Promise<void> {
    this.#isOver = true;
    await this.#loading?.catch(() => {});
    this.break();
  }

  /** Breaks the line. */
  break(): void {
    this.#line.line.destroy();
  }

  async #takeCheckpoints(): Promise<void> {
    const { line, read, pages, kernel } = this.#line;
    const { cache, stop, run } = this.#host;
    const reader = new ColoReader(read);
    const taken = new CheckpointPages(kernel, cache);
    const say = (message: number) => line.write(coloMessage(message));
    await say(ColoMessage.checkpointReady);
    for (;;) {
      await reader.expect(ColoMessage.checkpointRequest);
      if (this.#isOver) return;
      await stop();
      await say(ColoMessage.checkpointReply);
      await reader.expect(ColoMessage.vmstateSend);
      await taken.take(pages());
      const devices = await reader.devices(cache.devices);
      await say(ColoMessage.vmstateReceived);
      if (this.#isOver) return;
      this.#loading = cache.apply(devices);
      await this.#loading;
      this.#loading = undefined;
      await say(ColoMessage.vmstateLoaded);
      if (!this.#isOver) run();
    }
  }
}
