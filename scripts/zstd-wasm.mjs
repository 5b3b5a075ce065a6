/**
 * Takes the WebAssembly modules for zstd out of their packages, whose own loops around them do not do, and writes them
 * beside the kernels: the decoder of zstddec (src/io/zstd-wasm.ts), the encoder of @bokuweb/zstd-wasm
 * (src/io/zstd-encoder.ts).
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';

const dist = new URL('../dist/', import.meta.url);
mkdirSync(dist, { recursive: true });

function write(name, bytes, from) {
  if (!WebAssembly.validate(bytes)) throw new Error(`expected a valid module in ${from}`);
  writeFileSync(new URL(name, dist), bytes);
}

const decoder = readFileSync(new URL(import.meta.resolve('zstddec/stream')), 'utf8');
const base64 = /const wasm = "([A-Za-z0-9+/=]+)"/.exec(decoder)?.[1];
if (base64 === undefined) throw new Error('expected a module in zstddec/stream, found none');
write('zstd.wasm', Buffer.from(base64, 'base64'), 'zstddec/stream');

const encoder = import.meta.resolve('@bokuweb/zstd-wasm');
const glue = readFileSync(new URL('zstd.js', encoder), 'utf8');
// Which of the module's exports is which function: src/io/zstd-encoder.ts calls them by these letters.
const exported = {
  ___wasm_call_ctors: 'g',
  _ZSTD_isError: 'h',
  _ZSTD_compressBound: 'i',
  _ZSTD_createCCtx: 'j',
  _ZSTD_compress_usingDict: 'l',
  _malloc: 's',
};
for (const [name, letter] of Object.entries(exported)) {
  if (new RegExp(`var ${name} = [^;]*wasmExports\\['${letter}'\\]`).test(glue)) continue;
  throw new Error(`expected ${name} as the export "${letter}" of @bokuweb/zstd-wasm, found another`);
}
write('zstd-encoder.wasm', readFileSync(new URL('zstd.wasm', encoder)), '@bokuweb/zstd-wasm');
