/** Sinks take a Flow: a store of pages, an index of them, or a set of raw images. The wrappers here hold items back. */
import type { FlowItem } from '../vm/flow.ts';
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
