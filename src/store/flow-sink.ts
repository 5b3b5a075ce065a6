/** What takes a Flow in, such as a store of pages, an index of them, or a set of raw images; and wrappers that hold items back. */
import type { FlowItem } from '../vm/flow.ts';
import type { RamBlock } from '../vm/ram-block.ts';

/** Takes the items of a Flow in their order. A sink ignores the kinds of items that it has no use for. */
export interface FlowSink {
  /** Takes an item. The batch or bitmap of the item is valid until this is done. @throws what refuses the item */
  take(item: FlowItem): Promise<void> | void;
  /** A page that was discarded and has not come again, if there is one. */
  lostPage?(): { block: RamBlock; page: number } | undefined;
}

/** `sink`, but items for which `refuse` returns an error are not given to it: that error is thrown. */
export function refusing(sink: FlowSink, refuse: (item: FlowItem) => Error | undefined): FlowSink {
  return {
    take(item) {
      const error = refuse(item);
      if (error !== undefined) throw error;
      return sink.take(item);
    },
    lostPage: () => sink.lostPage?.(),
  };
}

/** `sink`, but given only the blocks, and pages and discards of those blocks for which `isWanted` returns true. */
export function onlyPages(sink: FlowSink, isWanted: (block: RamBlock) => boolean = () => true): FlowSink {
  return {
    take(item) {
      if (item.kind === 'block') return sink.take(item);
      if ((item.kind === 'pages' || item.kind === 'discard') && isWanted(item.block)) return sink.take(item);
    },
    lostPage: () => sink.lostPage?.(),
  };
}
