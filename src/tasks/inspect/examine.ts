/** Inspects and verifies a file in one reading, for a viewer that shows both. */
import { originOf } from '../../io/byte-source.ts';
import type { MigrationFile } from '../../read/open.ts';
import { type FlowSink, readFlow } from '../../store/flow-sink.ts';
import type { Finding } from '../../vm/migration-error.ts';
import { FlowStats } from './flow-stats.ts';
import { type InspectResult, reportInspection } from './inspect.ts';
import { type Verification, Verifier } from './verify.ts';

/** The results of one reading. */
export interface Examination extends InspectResult {
  /** Undefined if the pages were not read. */
  verification: Verification | undefined;
  /** The error that ended the reading, if one did. */
  error: Finding | undefined;
}

/** How a file is examined. */
export interface ExamineOptions {
  /** `bitmaps`: skips the pages, as in `FlowOptions`. There is no verification then. */
  read: 'pages' | 'bitmaps';
  /** More sinks for the Flow. Their errors end the reading; `SeparateSink` prevents that. */
  sinks: readonly FlowSink[];
  /** Called when the states of all blocks exist. They fill while the file is being read. */
  onBlocks?: (states: InspectResult['states']) => void;
}

/** Reads a file once, and gives the results of `inspect` (with the states of all pages) and of `verify`. */
export async function examine(file: MigrationFile, { read, sinks, onBlocks }: ExamineOptions): Promise<Examination> {
  const stats = new FlowStats(originOf(file.source), true);
  const verifier = read === 'pages' ? new Verifier(file) : undefined;
  const announcer: FlowSink = {
    take: (item) => {
      if (item.kind === 'blocks-end') onBlocks?.(stats.blocks);
    },
  };
  const own = verifier === undefined ? [stats] : [verifier, stats];
  const error = await readFlow(file, [...own, ...sinks, announcer], { read });
  verifier?.finish(error);
  if (error === undefined) stats.noteMissingChannels(file.channels);
  const isVerified = verifier !== undefined && error === undefined;
  const inspection = await reportInspection(file, stats, error, isVerified ? [verifier.stats.findings] : []);
  return { inspection, states: stats.blocks, verification: verifier?.report(), error };
}
