/** The globals of Node that unit tests use. */
export { Buffer } from 'buffer';
