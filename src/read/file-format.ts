/**
 * Finds which of QEMU's two file formats a stream has, by its first bytes. The configuration of a mapped-ram file names
 * the capability `mapped-ram` (docs/formats/mapped-ram.md). A file that is something else is refused by its name.
 */
import { type ByteSource, placeIn } from '../io/byte-source.ts';
import { type Peeked, peek } from '../io/peeked-source.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { ByteWindow, has, type Need } from '../wire/byte-window.ts';
import { decodeConfiguration } from '../wire/configuration.ts';
import { multifdMagic, multifdVersion } from '../wire/multifd-packet.ts';
import { SectionType } from '../wire/section-type.ts';
import { recoveryStart, streamMagic, streamVersion } from '../wire/stream.ts';
import { findForeignKind, foreignHeadLength } from './foreign-kinds.ts';

/** Pages one after another in the order of sending, or each page at its place. */
export type FileFormat = 'stream' | 'mapped-ram';

/** Bytes read to find the configuration: nearly always enough, and more than the longest one. */
const headLengths = [4096, 128 * 1024];

/** Bytes of the stream header. */
const headerLength = 8;

/**
 * Finds the format of the stream at `offset`. Undefined if its first bytes are unreadable; reading then reports the
 * reason. Continue with the `source` of the result: if the source can be read only once, it has kept the bytes.
 * `foreign` is the error for a file of another kind, which its message names.
 */
export async function findFormat(
  source: ByteSource,
  offset: number,
): Promise<{ format: FileFormat | undefined; source: ByteSource; foreign?: MigrationError }> {
  let peeked: Peeked = { head: new Uint8Array(), source };
  for (const length of headLengths) {
    peeked = await peek(peeked.source, offset, length, (head) => formatOf(head, false) !== undefined);
    const format = formatOf(peeked.head, peeked.head.length < length);
    if (format === 'unreadable' && !isOfMigration(peeked.head)) {
      // A pipe may stay silent.
      if (source.size !== undefined) peeked = await peek(source, offset, foreignHeadLength, () => false);
      const foreign = foreignError(peeked, offset);
      return { format: undefined, source: peeked.source, ...(foreign === undefined ? {} : { foreign }) };
    }
    if (format !== undefined) return { format: format === 'unreadable' ? undefined : format, source: peeked.source };
  }
  return { format: undefined, source: peeked.source };
}

/** Whether bytes begin a stream, or another part of a migration, that cannot be read from there. */
function isOfMigration(head: Uint8Array): boolean {
  if (head.length < 4) return head.length === 0;
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const first = view.getUint32(0);
  const isChannel = first === multifdMagic && head.length >= headerLength && view.getUint32(4) === multifdVersion;
  return first === streamMagic || isChannel || first >>> 8 === recoveryStart;
}

/** The error for a file of another kind, if it is known. */
function foreignError({ head, source, failure }: Peeked, offset: number): MigrationError | undefined {
  if (failure !== undefined) return undefined;
  const kind = findForeignKind({ head, name: source.name, size: source.size });
  if (kind === undefined) return undefined;
  const inside = source.coordinate === 'decompressed' ? ' in the compressed data' : '';
  const message = `expected a migration stream${inside}, got ${kind.what}: ${kind.todo}`;
  return new MigrationError('not-a-migration-stream', message, placeIn(source, offset), 'another-kind');
}

/** The format by the first bytes; undefined if more are needed. `isWhole`: no bytes follow. */
function formatOf(head: Uint8Array, isWhole: boolean): FileFormat | 'unreadable' | undefined {
  const window = new ByteWindow(head, '');
  window.limit = head.length;
  window.ended = isWhole;
  const decoder = decodeHead(window);
  try {
    for (;;) {
      const step = decoder.next();
      if (step.done === true) return step.value;
      if (!isWhole) return undefined;
    }
  } catch (error) {
    if (error instanceof MigrationError) return 'unreadable';
    throw error;
  }
}

/** Decodes the header and the configuration. */
function* decodeHead(window: ByteWindow): Generator<Need, FileFormat | 'unreadable'> {
  if (!(yield* has(window, headerLength + 1))) return 'unreadable';
  const { view, bytes } = window;
  if (view.getUint32(0) !== streamMagic || view.getUint32(4) !== streamVersion) return 'unreadable';
  if (bytes[headerLength] !== SectionType.configuration) return 'stream';
  window.position = headerLength + 1;
  const { capabilities } = yield* decodeConfiguration(window);
  return capabilities.includes('mapped-ram') ? 'mapped-ram' : 'stream';
}
