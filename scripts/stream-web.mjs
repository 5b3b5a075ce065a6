// What xz-decompress takes from Node's module stream/web: every platform has it as a global.
export const { ReadableStream } = globalThis;
