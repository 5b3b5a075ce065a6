/** Makes a `.wasm` import return the module's bytes, as in the build (tsup's loader `binary`), for Vite and Vitest. */
import { readFileSync } from 'node:fs';

export const wasmBytes = () => ({
  name: 'wasm-bytes',
  enforce: 'pre' as const,
  load(id: string) {
    if (!id.endsWith('.wasm')) return;
    const base64 = readFileSync(id).toString('base64');
    return `export default Uint8Array.from(atob('${base64}'), (c) => c.charCodeAt(0));`;
  },
});
