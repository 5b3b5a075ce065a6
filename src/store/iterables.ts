/** Reads the sections of iterables other than RAM, which a writer copies byte for byte. */
import { placeIn, readFully } from '../io/byte-source.ts';
import type { MigrationFile } from '../read/open.ts';
import type { Section } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { RawSection } from '../vm/saved-vm.ts';

/** The most bytes of iterables other than RAM that are copied in all. */
const maxIterableBytes = 128 << 20;

/**
 * Reads the sections of iterables other than RAM, byte for byte.
 * @throws MigrationError `unsupported` for a file that cannot be read twice, or was recovered; `limit-exceeded`
 */
export async function readIterables(file: MigrationFile, sections: readonly Section[]): Promise<RawSection[]> {
  const [first] = sections;
  if (first === undefined) return [];
  const place = { ...placeIn(file.source, first.offset), section: first.name };
  if (!file.isSeekable || file.parts.resumeOf.length > 0) {
    const where = 'a file (not a pipe, not compressed) of a migration that was not recovered';
    throw new MigrationError('unsupported', `sections of ${first.name} can be copied only from ${where}`, place);
  }
  const bytes = sections.reduce((sum, { length }) => sum + length, 0);
  if (bytes > maxIterableBytes) {
    const message = `expected at most ${maxIterableBytes} bytes of iterables other than RAM, got ${bytes}`;
    throw new MigrationError('limit-exceeded', message, place);
  }
  const read: RawSection[] = [];
  for (const { kind, offset, length } of sections) {
    const section = { kind, bytes: new Uint8Array(length) };
    await readFully(file.content, section.bytes, offset);
    read.push(section);
  }
  return read;
}
