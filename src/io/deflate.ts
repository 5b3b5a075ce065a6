/** The compressing part of pako. Loaded when it is first needed. */
export { Deflate } from 'pako';
