// Replaces Node's module stream/web for xz-decompress; every platform has these as globals.
export const { ReadableStream } = globalThis;
