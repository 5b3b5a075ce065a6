/** Opens bytes as each kind of source: with random access, and forward only. */
import { type MigrationFile, type Openable, type OpenOptions, open, StreamSource } from '../../src/index.ts';
import { chunksOf } from '../io/sources.ts';

export const kindsOfSource = ['file', 'pipe'] as const;
export type KindOfSource = (typeof kindsOfSource)[number];

export function opened(
  bytes: Uint8Array,
  as: KindOfSource = 'file',
  options: OpenOptions<Openable> = {},
): Promise<MigrationFile> {
  // Records are rarely multiples of 999 bytes, so chunks cut them everywhere.
  return open(as === 'file' ? bytes : new StreamSource(chunksOf(bytes, 999), 'memory'), options);
}
