/**
 * Copies the WebAssembly modules for zstd to where the kernels are: the decoder from zstddec (src/io/zstd-wasm.ts),
 * base64 in that package's script, and the encoder from @bokuweb/zstd-wasm (src/io/zstd-encoder.ts), a file in that
 * package.
 *
 * Each module is pinned by its SHA-256, since our code calls its exports. After a package update, check the module's
 * imports and exports, run the codec tests, and enter the new hash.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';

const dist = new URL('../dist/', import.meta.url);
mkdirSync(dist, { recursive: true });

/** Finds the module in a script: base64 that starts with WebAssembly's magic bytes. */
function moduleIn(script) {
  const base64 = /["'](?:data:[^,"']*,)?(AGFzbQ[A-Za-z0-9+/=]+)["']/.exec(readFileSync(script, 'utf8'))?.[1];
  if (base64 === undefined) throw new Error(`expected a WebAssembly module in ${script.pathname}, found none`);
  return Buffer.from(base64, 'base64');
}

function write(name, bytes, from, pinned) {
  const hash = createHash('sha256').update(bytes).digest('hex');
  if (hash !== pinned) {
    throw new Error(
      `${from} is not the module that ${name} was tested with: expected SHA-256 ${pinned}, got ${hash} (see scripts/zstd-wasm.mjs)`,
    );
  }
  writeFileSync(new URL(name, dist), bytes);
}

write(
  'zstd.wasm',
  moduleIn(new URL(import.meta.resolve('zstddec/stream'))),
  'the decoder in zstddec',
  '793b767467d8effccc43e8198c854f587835493a748512fa4352837a96fd1060',
);
write(
  'zstd-encoder.wasm',
  readFileSync(new URL('../node_modules/@bokuweb/zstd-wasm/dist/web/zstd.wasm', import.meta.url)),
  'the encoder in @bokuweb/zstd-wasm',
  '80260eee5795ee8072bb5821e203730c74dca3909938f5ac1128da67f96223df',
);
