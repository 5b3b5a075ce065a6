import { MemoryFile } from '../../src/io/memory-file.ts';

/** A file in memory that records all writes and calls. */
export class RecordingFile extends MemoryFile {
  writes: { position: number; length: number }[] = [];
  closed = 0;

  override write(bytes: Uint8Array, position: number): void {
    // The base class writes its first content before the fields of this class exist.
    this.writes?.push({ position, length: bytes.length });
    super.write(bytes, position);
  }

  override async close(): Promise<void> {
    this.closed++;
  }

  /** All bytes. */
  content(): Uint8Array {
    const bytes = new Uint8Array(this.size);
    this.read(bytes, 0);
    return bytes;
  }
}
