/** Outputs that several commands share: a file that appears whole or not at all, or a target that is written in place. */
import { fstatSync, statSync } from 'node:fs';
import { NodeFile } from '../io/node/file.ts';
import { isReplaceable, OutputFile } from '../io/node/output-file.ts';
import { openInPlace } from '../io/node/output-in-place.ts';
import type { MigrationFile } from '../read/open.ts';
import type { RamRange } from '../tasks/extract/range.ts';
import { UsageError } from './exit-codes.ts';
import { note } from './messages.ts';

/** @throws UsageError if the output would replace the input */
export function refuseInput({ input, parts }: MigrationFile, path: string): void {
  const target = statSync(path, { throwIfNoEntry: false });
  if (target === undefined) return;
  for (const each of [input, ...Object.values(parts).flat()]) {
    if (!(each instanceof NodeFile)) continue;
    const { dev, ino } = fstatSync(each.fd);
    if (dev === target.dev && ino === target.ino) {
      throw new UsageError(`expected an output other than the input, got ${path}`);
    }
  }
}

/** Whether bytes and words would both go to standard output: `-`, or /dev/stdout and the like. */
export function isStandardOutput(output: string): boolean {
  if (output === '-') return true;
  const [target, own] = [statSync(output, { throwIfNoEntry: false }), fstatSync(process.stdout.fd)];
  return target !== undefined && !target.isFile() && target.dev === own.dev && target.ino === own.ino;
}

const zeros = new Uint8Array(1 << 20);

/** Pieces that are written in order. */
type Pieces = Pick<RamRange, 'length' | 'pieces'>;

/** Passes on all bytes in order, zeros included. */
export async function writeBytes(range: Pieces, write: (bytes: Uint8Array) => Promise<void>): Promise<void> {
  for await (const { length, bytes } of range.pieces()) {
    if (bytes !== undefined) await write(bytes);
    else for (let left = length; left > 0; left -= zeros.length) await write(zeros.subarray(0, left));
  }
}

export function* parts(bytes: Uint8Array, length: number): Generator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

export const noteInPlace = (path: string) => note(`${path} is not a regular file; writing in place (cannot be undone)`);

export interface Target {
  write(range: Pieces): Promise<void>;
  abandon(): Promise<void>;
}

/** Opens the output: a file that appears whole or not at all, with holes for zeros, or something that cannot be replaced. */
export function openTarget(file: MigrationFile, path: string): Target {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`expected a file to write to, got the directory ${path}`);
  }
  if (!isReplaceable(path)) {
    noteInPlace(path);
    return { write: (range) => writeInPlace(range, path), abandon: async () => {} };
  }
  refuseInput(file, path);
  // Opened first, so that an output that cannot be written fails before a long read.
  const output = new OutputFile(path);
  return {
    async write(range) {
      let at = 0;
      for await (const { length, bytes } of range.pieces()) {
        if (bytes !== undefined) output.file.write(bytes, at);
        at += length;
      }
      output.file.truncate(range.length);
      await output.commit();
    },
    abandon: () => output.abandon(),
  };
}

async function writeInPlace(range: Pieces, path: string): Promise<void> {
  const output = await openInPlace(path);
  try {
    await writeBytes(range, (bytes) => output.write(bytes));
  } finally {
    await output.close();
  }
}
