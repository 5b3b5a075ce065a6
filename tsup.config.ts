import { defineConfig } from 'tsup';

export default defineConfig({
  entry: {
    index: 'src/index.ts',
    node: 'src/node.ts',
    migrate: 'src/migrate/index.ts',
    'node-migrate': 'src/node-migrate.ts',
    qmp: 'src/qmp/index.ts',
    kernel: 'src/kernel/index.ts',
    cli: 'src/cli/main.ts',
    'zstd-worker': 'src/io/node/zstd-worker.ts',
  },
  format: 'esm',
  target: 'es2022',
  platform: 'neutral',
  external: [/^node:/],
  // For browsers without a bundler (THIRD-PARTY.md); decompressors are separate chunks, loaded on demand.
  noExternal: ['@rgrove/parse-xml', 'fflate', 'jsonc-parser', 'pako', 'xz-decompress'],
  // TypeScript 6 warns about an option that tsup sets for the declarations.
  dts: {
    entry: {
      index: 'src/index.ts',
      node: 'src/node.ts',
      migrate: 'src/migrate/index.ts',
      'node-migrate': 'src/node-migrate.ts',
      qmp: 'src/qmp/index.ts',
      kernel: 'src/kernel/index.ts',
    },
    compilerOptions: { ignoreDeprecations: '6.0' },
    // They name Symbol.asyncDispose, which a project's own libraries may lack.
    banner: '/// <reference lib="esnext.disposable" />',
  },
  // The kernels are small (a few kB), so they are inlined and bundlers need not find them.
  loader: { '.wasm': 'binary' },
  // A neutral platform ignores "main", the only entry that xz-decompress has.
  esbuildOptions(options) {
    options.mainFields = ['module', 'main'];
    options.alias = { 'stream/web': './scripts/stream-web.mjs' };
  },
  splitting: true,
  // Deno and bundlers recognize Node's modules by their prefix.
  removeNodeProtocol: false,
  sourcemap: true,
  clean: ['!*.wasm'],
});
