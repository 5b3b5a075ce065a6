/** Page records in the arena: what the kernel that decodes them is given, and the tables that it fills. */

/** Tables of page records in the arena: those of a `PageBatch`. */
export interface RecordTables {
  readonly capacity: number;
  readonly count: number;
  /** Addresses of tables of bytes, doubles and words. */
  readonly kindAddress: number;
  readonly pageAddress: number;
  readonly offsetAddress: number;
  readonly sizeAddress: number;
  readonly dataAddress: number;
  readonly lengthAddress: number;
}

/** Where records of a stream are, and what comes next. */
export interface RecordSource {
  /** Arena addresses of the first byte, and after the last one. */
  at: number;
  limit: number;
  /** What is added to an address to get an offset in the source. */
  base: number;
  pageSize: number;
  /** The page of the record before. */
  lastPage: number;
  /** Bytes of the block. */
  usedLength: number;
}
