import { defineConfig } from 'tsup';

export default defineConfig({
  entry: { index: 'src/index.ts', node: 'src/node.ts', kernel: 'src/kernel/index.ts', cli: 'src/cli/main.ts' },
  format: 'esm',
  target: 'es2022',
  platform: 'neutral',
  external: [/^node:/],
  // For browsers without a bundler; a chunk of its own, loaded when it is needed (THIRD-PARTY.md).
  noExternal: ['fflate'],
  // TypeScript 6 warns of an option that tsup sets for the declarations.
  dts: {
    entry: { index: 'src/index.ts', node: 'src/node.ts', kernel: 'src/kernel/index.ts' },
    compilerOptions: { ignoreDeprecations: '6.0' },
  },
  // The kernels are small (a few kB): inlined, so that no bundler has to find them.
  loader: { '.wasm': 'binary' },
  splitting: true,
  // Deno and bundlers know Node's modules by their prefix.
  removeNodeProtocol: false,
  sourcemap: true,
  clean: ['!*.wasm'],
});
