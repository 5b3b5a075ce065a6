/** The JSON that the live commands print with `--json`, as types. */
import type { VersionedJson } from '../vm/json-version.ts';
import type { MigrationProgress } from './progress.ts';

/** A RAM block that arrived. */
export interface ReceivedBlockJson {
  idstr: string;
  /** Bytes. */
  length: number;
  dataPages: number;
  zeroPages: number;
  /** Pages that were never sent. */
  absentPages: number;
}

/** `receive --json`. */
export interface ReceiveJson extends VersionedJson {
  output: string;
  /** Machine type; null before 2.4. */
  machine: string | null;
  /** Bytes of the file. */
  length: number;
  blocks: ReceivedBlockJson[];
  /** The source was told that the guest has arrived. */
  confirmed: boolean;
  /** Blocks that the source left out, if that was accepted. */
  leftOut: string[];
  /** What was found in the stream. */
  found: { channels: number; compression: string | null; postcopy: boolean; xbzrlePages: number };
  /** As `query-migrate` of QEMU has it. */
  progress: MigrationProgress;
}
