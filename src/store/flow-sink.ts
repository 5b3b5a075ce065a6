/**
 * Sinks take a Flow: a store of pages, an index of them, or a set of raw images. Several sinks can take one Flow, so that the
 * file is read once (`readFlow`). The wrappers here hold items back.
 */
import type { FlowOptions, MigrationFile } from '../read/open.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';

/** Takes the items of a Flow in order. A sink ignores the kinds of items that it does not need. */
export interface FlowSink {
  /**
   * Takes an item. The batch or bitmap of the item is valid until the call is done. @throws an error that refuses the
   * item
   */
  take(item: FlowItem): Promise<void> | void;
  /** A discarded page that was not sent again, if any. */
  lostPage?(): { block: RamBlock; page: number } | undefined;
  /** Pages of a block that were never sent. Undefined if the sink does not take the block. */
  absentPages?(block: RamBlock): number | undefined;
}

/** Wraps `sink`. If `refuse` returns an error for an item, that error is thrown, and `sink` does not get the item. */
export function refusing(sink: FlowSink, refuse: (item: FlowItem) => Error | undefined): FlowSink {
  return {
    take(item) {
      const error = refuse(item);
      if (error !== undefined) throw error;
      return sink.take(item);
    },
    lostPage: () => sink.lostPage?.(),
    absentPages: (block) => sink.absentPages?.(block),
  };
}

/** Wraps `sink`. It gets only blocks, and the pages and discards of blocks for which `isWanted` returns true. */
export function onlyPages(sink: FlowSink, isWanted: (block: RamBlock) => boolean = () => true): FlowSink {
  return {
    take(item) {
      if (item.kind === 'block') return sink.take(item);
      if ((item.kind === 'pages' || item.kind === 'discard') && isWanted(item.block)) return sink.take(item);
    },
    lostPage: () => sink.lostPage?.(),
    absentPages: (block) => (isWanted(block) ? sink.absentPages?.(block) : undefined),
  };
}

/**
 * Reads a file once for several sinks, as far as it is readable. Each item goes to one sink after another. Returns the error that
 * ended the reading, if one did.
 * @throws errors other than a MigrationError
 */
export async function readFlow(
  file: MigrationFile,
  sinks: readonly FlowSink[],
  options: FlowOptions = {},
): Promise<Finding | undefined> {
  try {
    for await (const item of file.flow(options)) {
      for (const sink of sinks) {
        const taken = sink.take(item);
        if (taken !== undefined) await taken;
      }
    }
    return undefined;
  } catch (error) {
    if (error instanceof MigrationError) return error.toFinding();
    throw error;
  }
}

/** A sink whose failure does not end the Flow for the other sinks. It takes nothing after its first error. */
export class SeparateSink implements FlowSink {
  readonly #sink: FlowSink;
  #failure: { error: unknown } | undefined;

  constructor(sink: FlowSink) {
    this.#sink = sink;
  }

  /** The error that ended it, if one did. */
  get failure(): { error: unknown } | undefined {
    return this.#failure;
  }

  take(item: FlowItem): Promise<void> | void {
    if (this.#failure !== undefined) return;
    try {
      const taken = this.#sink.take(item);
      return taken?.catch((error: unknown) => this.#fail(error));
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#failure = { error };
  }
}
