/**
 * vmferry: reads, verifies and extracts QEMU migration streams and mapped-ram files.
 *
 * This is the face for every platform; `vmferry/node` adds files and pipes.
 */

import { type MigrationFile, mapParts, type OpenOptions, openFile } from './file/open.ts';
import { BlobSource } from './io/blob-source.ts';
import type { ByteSource } from './io/byte-source.ts';
import { MemoryFile } from './io/memory-file.ts';
import { StreamSource } from './io/stream-source.ts';

/** What {@link open} takes, apart from a {@link ByteSource} of your own. */
export type Openable = Blob | Uint8Array | ReadableStream<Uint8Array> | ByteSource;

/**
 * Opens a migration stream or mapped-ram file.
 *
 * @example
 * const file = await open(blob);
 * const { inspection } = await inspect(file);
 * console.log(inspection.machine, inspection.ram.blocks.map((block) => block.idstr));
 *
 * @throws TypeError for anything that is not a source of bytes.
 */
export async function open(input: Openable, options: OpenOptions<Openable> = {}): Promise<MigrationFile> {
  return openFile(toSource(input), { ...options, ...(await mapParts(options, toSource)) });
}

function toSource(input: Openable): ByteSource {
  if (input instanceof Uint8Array) return new MemoryFile('memory', input);
  if (typeof Blob !== 'undefined' && input instanceof Blob) return new BlobSource(input);
  if (input instanceof ReadableStream) return openReadable(input);
  if (typeof (input as ByteSource)?.read === 'function') return input as ByteSource;
  throw new TypeError(`expected a Blob, a Uint8Array, a ReadableStream or a ByteSource, got ${typeof input}`);
}

/** A ReadableStream as a source: not in every browser it is an async iterable. */
function openReadable(stream: ReadableStream<Uint8Array>): ByteSource {
  const reader = stream.getReader();
  const read = async function* (): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  };
  return new StreamSource(read(), 'stream', () => void reader.cancel().catch(() => {}));
}

export { type ExtractedBlock, extractBlocks } from './file/extract.ts';
export { type CountedFinding, FindingLog } from './file/finding-log.ts';
export {
  type InspectedBlock,
  type InspectedSection,
  type Inspection,
  type InspectOptions,
  type InspectResult,
  inspect,
  mapPages,
} from './file/inspect.ts';
export { type MappedRamOptions, MappedRamReader, MappedRamStore } from './file/mapped-ram-store.ts';
export { type FlowOptions, MigrationFile, type OpenOptions, type Parts } from './file/open.ts';
export {
  type ContentPiece,
  type Digest,
  digestContent,
  isMappedRam,
  openRamContent,
  openSavedVm,
  type RamContentOptions,
  readBytes,
  readContent,
  type SavedVmOptions,
} from './file/ram-content.ts';
export type { InspectedReturnPath } from './file/return-path.ts';
export { type RamSink, type Settled, type SettleOptions, settle } from './file/settle.ts';
export { Staging } from './file/staging.ts';
export type { PageCounts, RecordCount } from './file/survey.ts';
export { type Verification, verify } from './file/verify.ts';
export { BlobSource } from './io/blob-source.ts';
export type { ByteSource, ByteStore } from './io/byte-source.ts';
export { MemoryFile } from './io/memory-file.ts';
export { StreamSource } from './io/stream-source.ts';
export * from './kernel/index.ts';
export type * from './vm/flow.ts';
export { discardedState, PageStates } from './vm/page-states.ts';
export { type MappedPlace, maxRamBytes, pageCount, type RamBlock } from './vm/ram-block.ts';
export type { PageState, RamReader, RamStore } from './vm/ram-store.ts';
export type { SavedVm } from './vm/saved-vm.ts';
export type { DirtyBitmap } from './wire/dirty-bitmap.ts';
export {
  type Finding,
  type FindingCode,
  findingCodes,
  formatPlace,
  MigrationError,
  type Place,
  type Severity,
} from './wire/migration-error.ts';
export type { ReturnMessage } from './wire/return-path.ts';
