/** The part of fflate that writes zip archives: a chunk of its own, loaded when an archive is written. */
export { Zip, ZipDeflate, ZipPassThrough } from 'fflate';
