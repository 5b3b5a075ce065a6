/** The decompressing part of pako, so bundlers leave out the rest. Loaded when it is first needed. */
export { Inflate } from 'pako';
