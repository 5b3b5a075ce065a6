import { defineConfig } from 'tsup';

export default defineConfig({
  entry: { main: 'bench/main.ts', worker: 'bench/worker.ts', files: 'bench/files.ts', writing: 'bench/writing.ts' },
  outDir: 'bench/build',
  format: 'esm',
  target: 'node20',
  loader: { '.wasm': 'binary' },
  removeNodeProtocol: false,
});
