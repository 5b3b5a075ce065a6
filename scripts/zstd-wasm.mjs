/**
 * Takes the WebAssembly modules for zstd out of their packages, whose own loops around them do not do, and writes them
 * beside the kernels: the decoder of zstddec (src/io/zstd-wasm.ts), the encoder of @oneidentity/zstd-js
 * (src/io/zstd-encoder.ts).
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const dist = new URL('../dist/', import.meta.url);
mkdirSync(dist, { recursive: true });

/** The module that stands in a script as base64: they all begin with these letters. */
function extract(from, name) {
  const source = readFileSync(fileURLToPath(import.meta.resolve(from)), 'utf8');
  const base64 = /["'](?:data:[^,"']*,)?(AGFzbQ[A-Za-z0-9+/=]+)["']/.exec(source)?.[1];
  if (base64 === undefined) throw new Error(`expected a module in ${from}, found none`);
  const bytes = Buffer.from(base64, 'base64');
  if (!WebAssembly.validate(bytes)) throw new Error(`expected a valid module in ${from}`);
  writeFileSync(new URL(name, dist), bytes);
}

extract('zstddec/stream', 'zstd.wasm');
extract('@oneidentity/zstd-js/wasm/index.js', 'zstd-encoder.wasm');
