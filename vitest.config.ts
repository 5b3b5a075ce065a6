import { readFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

/** Inlines a `.wasm` import as bytes, as the build does. */
const wasmBytes = {
  name: 'wasm-bytes',
  enforce: 'pre' as const,
  load(id: string) {
    if (!id.endsWith('.wasm')) return;
    const base64 = readFileSync(id).toString('base64');
    return `export default Uint8Array.from(atob('${base64}'), (c) => c.charCodeAt(0));`;
  },
};

const project = (name: string, include: string[], testTimeout: number) => ({
  plugins: [wasmBytes],
  test: { name, include, testTimeout, hookTimeout: testTimeout },
});

export default defineConfig({
  test: {
    projects: [
      // test/ mirrors src/; everything here runs without QEMU.
      project('unit', ['test/{kernel,oracle,vm,wire,io,file}/**/*.test.ts'], 120_000),
      // The built package and command line, on the fixtures that ship with the repo.
      project('smoke', ['test/{cli,package,proof}/**/*.test.ts'], 300_000),
      // The built package in real Chromium.
      project('browser', ['test/browser/**/*.test.ts'], 120_000),
      project('qemu', ['test/qemu/**/*.test.ts'], 300_000),
    ],
  },
});
