/** The part of fflate that writes zip archives of stored files: a chunk of its own, loaded when an archive is written. */
export { Zip, ZipPassThrough } from 'fflate';
