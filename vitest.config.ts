import { defineConfig } from 'vitest/config';
import { wasmBytes } from './scripts/wasm-bytes.ts';

const project = (name: string, include: string[], testTimeout: number) => ({
  plugins: [wasmBytes()],
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
