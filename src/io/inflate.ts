/** The part of pako that is used: bundlers leave out the rest. Loaded when it is first needed. */
export { Inflate } from 'pako';
