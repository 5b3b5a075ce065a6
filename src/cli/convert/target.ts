/** The output of `vmferry convert`: a file that appears whole or not at all, with or without something before the stream. */
import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import type { ByteStore } from '../../io/byte-source.ts';
import { isHttp } from '../../io/http-source.ts';
import { isReplaceable, OutputFile } from '../../io/node/output-file.ts';
import { parseLocation } from '../../read/location.ts';
import { UsageError } from '../exit-codes.ts';
import { warn } from '../messages.ts';

/** What OUT names: a file, and where in it the stream begins. */
export interface Place {
  path: string;
  /** Undefined: the stream begins the file. */
  offset: number | undefined;
}

/** Splits `PATH,offset=N`, unless there is a file of that whole name. */
export function parseTarget(output: string): Place {
  if (isHttp(output)) throw new UsageError(`expected a file to write to, got the URL ${output}`);
  return existsSync(output) ? { path: output, offset: undefined } : parseLocation(output);
}

/** Refuses an offset, for an output that begins its file. @throws UsageError for `PATH,offset=N` */
export function requireNoOffset(output: string, what: string): void {
  if (parseTarget(output).offset !== undefined)
    throw new UsageError(`${what} must begin at the start of a file: expected no offset, got ${output}`);
}

/** Whether the output is, or will be, a regular file. */
export function isRegularTarget({ path, offset }: Place): boolean {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`expected a file to write to, got the directory ${path}`);
  }
  if (isReplaceable(path)) return true;
  if (offset !== undefined) throw new UsageError(`expected a regular file for an offset, got ${path}`);
  return false;
}

/**
 * Begins the file. It replaces a file of that name: the bytes before the offset are copied, the rest is dropped, as
 * when QEMU writes to an offset.
 */
export async function openTarget({ path, offset = 0 }: Place, directIo: boolean): Promise<OutputFile> {
  const target = new OutputFile(path, { directIo });
  if (directIo && target.file.alignment === undefined) {
    warn(`no direct I/O on the file system of ${path}; falling back to buffered writes`);
  }
  try {
    if (offset > 0) {
      if (existsSync(path)) copyFront(path, target.file, offset);
      target.file.truncate(offset);
    }
    return target;
  } catch (error) {
    await target.abandon();
    throw error;
  }
}

const pieceBytes = 1 << 20;
const zeros = Buffer.alloc(pieceBytes);

/** Copies the first `length` bytes of a file, or all if it is shorter. Zeros become holes. */
function copyFront(path: string, output: ByteStore & { write(bytes: Uint8Array, at: number): void }, length: number) {
  const fd = openSync(path, 'r');
  try {
    const piece = Buffer.alloc(pieceBytes);
    for (let at = 0; at < length; ) {
      const count = readSync(fd, piece, 0, Math.min(pieceBytes, length - at), at);
      if (count === 0) return;
      const bytes = piece.subarray(0, count);
      if (!bytes.equals(zeros.subarray(0, count))) output.write(bytes, at);
      at += count;
    }
  } finally {
    closeSync(fd);
  }
}
