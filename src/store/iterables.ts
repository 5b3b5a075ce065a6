/** Reads the sections of iterables other than RAM, which a writer copies byte for byte. */
import { placeIn, readFully } from '../io/byte-source.ts';
import type { MigrationFile } from '../read/open.ts';
import type { Section } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { RawSection } from '../vm/saved-vm.ts';

/** The most bytes of iterables other than RAM that are held in memory. Of larger ones a part is, and the rest is read later. */
const maxIterableBytes = 128 << 20;
/** Bytes that are read at a time. */
const pieceBytes = 1 << 20;

/**
 * Reads the sections of iterables other than RAM, byte for byte.
 * @throws MigrationError `unsupported` for a file that cannot be read twice, or was recovered
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
  const held = bytes > maxIterableBytes ? pieceBytes : Number.POSITIVE_INFINITY;
  const read: RawSection[] = [];
  for (const { kind, offset, length } of sections) {
    const section: RawSection = { kind, bytes: new Uint8Array(Math.min(length, held)) };
    await readFully(file.content, section.bytes, offset);
    if (length > held) section.rest = () => readPieces(file, offset + held, offset + length);
    read.push(section);
  }
  return read;
}

async function* readPieces(file: MigrationFile, from: number, to: number): AsyncGenerator<Uint8Array, void> {
  for (let at = from; at < to; at += pieceBytes) {
    const piece = new Uint8Array(Math.min(pieceBytes, to - at));
    await readFully(file.content, piece, at);
    yield piece;
  }
}
