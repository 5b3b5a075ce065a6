/**
 * Takes the WebAssembly module out of the package zstddec, whose own loop around it does not do (src/io/zstd-wasm.ts),
 * and writes it beside the kernels.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const source = readFileSync(fileURLToPath(import.meta.resolve('zstddec/stream')), 'utf8');
const base64 = /const wasm = "([A-Za-z0-9+/=]+)"/.exec(source)?.[1];
if (base64 === undefined) throw new Error('expected a module in zstddec/stream, found none');
const bytes = Buffer.from(base64, 'base64');
if (!WebAssembly.validate(bytes)) throw new Error('expected a valid module in zstddec/stream');
const dist = new URL('../dist/', import.meta.url);
mkdirSync(dist, { recursive: true });
writeFileSync(new URL('zstd.wasm', dist), bytes);
