/** Bytes that can be looked at: of a RAM block's final content, or of the file itself. */
import type { Place } from '../../vm/migration-error.ts';

export type BytesPlace =
  | {
      kind: 'ram';
      /** Of the file, or of the one it is compared with. */
      of: 'file' | 'base';
      /** Position of the block. */
      block: number;
      offset: number;
      /** Bytes that are marked from there on. */
      length: number;
    }
  | { kind: 'file'; at: Pick<Place, 'offset'> & Partial<Place>; length: number };
