import { defineConfig } from 'tsup';

export default defineConfig({
  entry: { index: 'src/index.ts', node: 'src/node.ts', kernel: 'src/kernel/index.ts', cli: 'src/cli/main.ts' },
  format: 'esm',
  target: 'es2022',
  platform: 'neutral',
  external: [/^node:/],
  // For browsers without a bundler (THIRD-PARTY.md); decompressors are chunks of their own, loaded when they are needed.
  noExternal: ['fflate', 'jsonc-parser', 'pako', 'xz-decompress'],
  // TypeScript 6 warns of an option that tsup sets for the declarations.
  dts: {
    entry: { index: 'src/index.ts', node: 'src/node.ts', kernel: 'src/kernel/index.ts' },
    compilerOptions: { ignoreDeprecations: '6.0' },
  },
  // The kernels are small (a few kB): inlined, so that no bundler has to find them.
  loader: { '.wasm': 'binary' },
  // A neutral platform knows no "main", which xz-decompress has alone.
  esbuildOptions(options) {
    options.mainFields = ['module', 'main'];
    options.alias = { 'stream/web': './scripts/stream-web.mjs' };
  },
  splitting: true,
  // Deno and bundlers know Node's modules by their prefix.
  removeNodeProtocol: false,
  sourcemap: true,
  clean: ['!*.wasm'],
});
