/** Outputs that several commands share: a file that appears whole or not at all, or a target that can only be written in place. */
import { fstatSync, statSync } from 'node:fs';
import { NodeFile } from '../io/node/file.ts';
import { isReplaceable, OutputFile } from '../io/node/output-file.ts';
import { openInPlace } from '../io/node/output-in-place.ts';
import type { MigrationFile } from '../read/open.ts';
import type { RamRange } from '../tasks/extract/range.ts';
import { UsageError } from './run.ts';

/** The input must not be replaced by what is extracted from it. */
export function refuseInput({ input, parts }: MigrationFile, path: string): void {
  const target = statSync(path, { throwIfNoEntry: false });
  if (target === undefined) return;
  for (const each of [input, ...Object.values(parts).flat()]) {
    if (!(each instanceof NodeFile)) continue;
    const { dev, ino } = fstatSync(each.fd);
    if (dev === target.dev && ino === target.ino) {
      throw new UsageError(`expected another output than the input, got ${path}`);
    }
  }
}

const zeros = new Uint8Array(1 << 20);

/** What is written in order. */
type Pieces = Pick<RamRange, 'length' | 'pieces'>;

/** Hands all bytes on in order, zeros included. */
export async function writeBytes(range: Pieces, write: (bytes: Uint8Array) => Promise<void>): Promise<void> {
  for await (const { length, bytes } of range.pieces()) {
    if (bytes !== undefined) await write(bytes);
    else for (let left = length; left > 0; left -= zeros.length) await write(zeros.subarray(0, left));
  }
}

export function* parts(bytes: Uint8Array, length: number): Generator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

export interface Target {
  write(range: Pieces): Promise<void>;
  abandon(): Promise<void>;
}

/** Where the bytes go: a file that appears whole or not at all, with holes for zeros, or what cannot be replaced. */
export function openTarget(file: MigrationFile, path: string): Target {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`expected a file to write to, got the directory ${path}`);
  }
  if (!isReplaceable(path)) {
    process.stderr.write(`vmferry: ${path} is no regular file: it is written in place\n`);
    return { write: (range) => writeInPlace(range, path), abandon: async () => {} };
  }
  refuseInput(file, path);
  // Opened first, so that a place that cannot be written to is known before a long read.
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
