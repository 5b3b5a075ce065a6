/** Opens bytes as the kinds of source there are: with random access, and forward only. */
import { type MigrationFile, type Openable, type OpenOptions, open, StreamSource } from '../../src/index.ts';
import { chunksOf } from '../io/sources.ts';

export const kindsOfSource = ['file', 'pipe'] as const;
export type KindOfSource = (typeof kindsOfSource)[number];

export function opened(
  bytes: Uint8Array,
  as: KindOfSource = 'file',
  options: OpenOptions<Openable> = {},
): Promise<MigrationFile> {
  // 999 bytes divide nothing: records are cut everywhere.
  return open(as === 'file' ? bytes : new StreamSource(chunksOf(bytes, 999), 'memory'), options);
}
