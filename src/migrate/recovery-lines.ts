/**
 * What a destination in postcopy does with a source that comes again (docs/formats/postcopy.md, "Recovery"):
 *
 *     source                          destination
 *     RECV_BITMAP, for each block  →
 *                                  ←  RECV_BITMAP: the pages that have arrived
 *     POSTCOPY_RESUME              →  it has asked about all blocks, so it is the same source
 *                                  ←  RESUME_ACK
 */
import { placeIn } from '../io/byte-source.ts';
import type { Clock } from '../io/clock.ts';
import { type Connection, PeerError } from '../io/connection.ts';
import type { MappedRamStore } from '../store/mapped-ram-store.ts';
import type { Command } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { readRecvBitmap } from '../wire/postcopy.ts';
import type { Answers } from './answers.ts';
import type { Incoming } from './incoming.ts';

/** No source has come to go on with its migration. */
export class SilenceError extends PeerError {}

/** Waits for a source, at most `ms` if that is given. @throws SilenceError if none comes in time; like `Incoming.main` */
export async function mainWithin(
  incoming: Incoming,
  { ms, clock, signal }: { ms: number | undefined; clock: Clock; signal: AbortSignal | undefined },
): Promise<Connection> {
  const next = incoming.main(signal);
  if (ms === undefined) return next;
  const done = new AbortController();
  const late = clock.sleep(ms, done.signal).then(
    () => undefined,
    () => undefined,
  );
  const main = await Promise.race([next, late]).finally(() => done.abort());
  if (main !== undefined) return main;
  next.catch(() => {});
  throw new SilenceError(`no source has come for ${ms / 1000} s`);
}

/** The questions of a source that goes on with its migration. */
export class RecoveryQuestions {
  readonly #store: MappedRamStore;
  readonly #answers: Answers;
  /** Blocks that it has asked about. */
  readonly #asked = new Set<RamBlock>();

  constructor(store: MappedRamStore, answers: Answers) {
    this.#store = store;
    this.#answers = answers;
  }

  /** Answers which pages of a block have arrived. */
  async sayReceived({ payload }: Command): Promise<void> {
    const idstr = readRecvBitmap(payload);
    const block = this.#store.blocks.find((each) => each.idstr === idstr);
    if (block === undefined) return;
    this.#asked.add(block);
    await this.#answers.sayReceived(block.idstr, this.#store.presentBits(block));
  }

  /** Says that the source may go on. @throws MigrationError if it has not asked about all blocks that it has sent */
  async sayResumed({ offset }: Command, main: Connection): Promise<void> {
    const store = this.#store;
    // Blocks of shared memory may have been left out.
    const mayLack = store.configuration?.capabilities.includes('x-ignore-shared') === true;
    const isSent = (block: RamBlock) => !mayLack || store.absentPages(block) * block.pageSize < block.usedLength;
    const other = store.blocks.find((block) => !this.#asked.has(block) && block.usedLength > 0 && isSent(block));
    if (other !== undefined) {
      const message = `the source did not ask about RAM block "${other.idstr}": it is not the source of this guest`;
      throw new MigrationError('mismatched-source', message, placeIn(main, offset));
    }
    await this.#answers.sayResumed();
  }
}
