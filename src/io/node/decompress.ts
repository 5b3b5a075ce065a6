/**
 * Decompresses in Node: gzip by node:zlib, xz by a library, other formats by the program of that name through pipes. If
 * the program zstd is missing, WebAssembly replaces it. node:zlib cannot: it stops after the first frame, and Node 22
 * ignores a truncated frame.
 */
import { spawn, spawnSync } from 'node:child_process';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as zlib from 'node:zlib';
import { type Compression, type Decompress, MissingDecompressorError, unxz, unzstd } from '../compression.ts';
import type { PlatformSignal } from '../platform.ts';

/** Bytes that node:zlib outputs at a time. */
const chunkSize = 256 * 1024;
/** Characters to keep of a program's error output. */
const maxComplaint = 2000;

/** Programs and the arguments that make them decompress standard input to standard output. */
const programs: Record<Exclude<Compression, 'gzip' | 'xz'>, string[]> = {
  bzip2: ['bzip2', '-dc'],
  lzop: ['lzop', '-dc', '--ignore-warn'],
  // A frame's window determines the memory it takes. This is the largest one, as of "zstd --ultra --long=31".
  zstd: ['zstd', '-dcq', '--memory=2048MB'],
};

/** Decompresses with Node, with libraries, and with installed programs: what `open` of `vmferry/node` uses. */
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
  // An input error destroys the transform and is thrown where its output is read.
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
  // A program that has read enough closes its input; its exit status gives the reason.
  const feeding = pipeline(chunks, child.stdin, { signal }).catch(() => {});
  try {
    yield* child.stdout;
    const status = await ended;
    if (failure !== undefined) throw explain(format, program, failure);
    if (status !== 0) throw new Error(firstLine(complaint) || `${program} ${describeExit(status)}`);
    await feeding;
  } finally {
    stop();
    child.stdin.destroy();
    signal.removeEventListener('abort', stop);
  }
}

/** Describes how a program ended, by its exit status or the signal that killed it. */
export const describeExit = (status: number | string) =>
  typeof status === 'number' ? `exited with status ${status}` : `was killed by ${status}`;

/** Programs follow their message with advice; this drops it. */
const firstLine = (text: string) => text.trim().split(/[;\n]/)[0] as string;

function explain(format: Compression, program: string, cause: NodeJS.ErrnoException): Error {
  const why = cause.code === 'ENOENT' ? 'is not installed' : `cannot be started (${cause.message})`;
  return new MissingDecompressorError(format, `the program "${program}" ${why}`, { cause });
}
