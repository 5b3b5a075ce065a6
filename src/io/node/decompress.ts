/**
 * Decompression in Node: gzip by node:zlib, xz by a library, the others by the program of that name, fed and read through
 * pipes. Without the program zstd, WebAssembly does that. Not node:zlib: it stops after the first frame, and Node 22 takes
 * no notice of a frame that breaks off.
 */
import { spawn, spawnSync } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as zlib from 'node:zlib';
import { type Compression, type Decompress, MissingDecompressorError, unxz, unzstd } from '../compression.ts';
import type { PlatformSignal } from '../platform.ts';

/** Bytes that node:zlib gives at a time. */
const chunkSize = 256 * 1024;
/** How much of what a program says is kept. */
const maxComplaint = 2000;

/** Programs and the arguments that make them decompress standard input to standard output. */
const programs: Record<Exclude<Compression, 'gzip' | 'xz'>, string[]> = {
  bzip2: ['bzip2', '-dc'],
  lzop: ['lzop', '-dc', '--ignore-warn'],
  // The window of a frame is what memory it takes: no more than the library takes by default.
  zstd: ['zstd', '-dcq', '--memory=128MB'],
};

export const nodeDecompress: Decompress = (format, chunks, signal) => {
  if (format === 'gzip') return through(zlib.createGunzip({ chunkSize }), chunks, signal);
  if (format === 'xz') return unxz(chunks, signal);
  if (format === 'zstd' && !hasProgram('zstd')) return unzstd(chunks, signal);
  return runProgram(format, programs[format], chunks, signal);
};

/** Whether a program of that name is installed. */
export const hasProgram = (name: string) => spawnSync(name, ['--version'], { stdio: 'ignore' }).error === undefined;

async function* through(
  transform: Duplex,
  chunks: AsyncIterable<Uint8Array>,
  signal: PlatformSignal,
): AsyncGenerator<Uint8Array, void> {
  // What goes wrong destroys the transform, and is thrown where its output is read.
  const feeding = pipeline(chunks, transform, { signal }).catch(() => {});
  try {
    yield* transform;
  } finally {
    transform.destroy();
    if (!signal.aborted) await feeding;
  }
}

async function* runProgram(
  format: Compression,
  [program = '', ...args]: string[],
  chunks: AsyncIterable<Uint8Array>,
  signal: PlatformSignal,
): AsyncGenerator<Uint8Array, void> {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], windowsHide: true });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(0, maxComplaint);
  });
  let failure: NodeJS.ErrnoException | undefined;
  const ended = new Promise<number | string>((resolve) => {
    child.once('error', (error) => {
      failure = error;
      resolve(-1);
    });
    child.once('close', (code, killedBy) => resolve(code ?? killedBy ?? -1));
  });
  const stop = () => void child.kill('SIGKILL');
  signal.addEventListener('abort', stop, { once: true });
  // A program that has seen enough closes its input; why it ended, its exit status says.
  const feeding = pipeline(chunks, child.stdin, { signal }).catch(() => {});
  try {
    yield* child.stdout;
    const status = await ended;
    if (failure !== undefined) throw explain(format, program, failure);
    if (status !== 0) throw new Error(firstLine(complaint) || `${program} ended with ${status}`);
    await feeding;
  } finally {
    stop();
    child.stdin.destroy();
    signal.removeEventListener('abort', stop);
  }
}

/** Programs go on about what one might do. */
const firstLine = (text: string) => text.trim().split(/[;\n]/)[0] as string;

function explain(format: Compression, program: string, cause: NodeJS.ErrnoException): Error {
  const why = cause.code === 'ENOENT' ? 'is not installed' : `cannot be started (${cause.message})`;
  return new MissingDecompressorError(format, `the program "${program}" ${why}`, { cause });
}
