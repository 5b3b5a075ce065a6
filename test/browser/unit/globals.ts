/** What unit tests use of Node's globals. */
export { Buffer } from 'buffer';
