/** The place of one page record, for findings and errors. */
import type { PageBatch } from '../kernel/page-batch.ts';
import type { Place } from './migration-error.ts';
import type { RamBlock } from './ram-block.ts';

/** The place of a record in a batch. */
export function pagePlace(block: RamBlock, batch: PageBatch, record: number): Place {
  return {
    ...batch.origin,
    offset: batch.offset[record] as number,
    section: 'ram',
    block: block.idstr,
    page: batch.page[record] as number,
  };
}
