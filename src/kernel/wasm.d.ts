/**
 * A WebAssembly module as its bytes. The build and the test runner inline `.wasm` imports (tsup.config.ts,
 * vitest.config.ts).
 */
declare module '*.wasm' {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}
