/** The bytes that the panel shows: from the final content of a RAM block, or from the file itself. */
import type { Place } from '../../vm/migration-error.ts';

export type BytesPlace =
  | {
      kind: 'ram';
      /** The open file, or the file that it is compared with. */
      of: 'file' | 'base';
      /** Position of the block. */
      block: number;
      offset: number;
      /** Number of marked bytes. */
      length: number;
    }
  | { kind: 'file'; at: Pick<Place, 'offset'> & Partial<Place>; length: number };
