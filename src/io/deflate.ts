/** The part of pako that compresses: loaded when it is first needed. */
export { Deflate } from 'pako';
