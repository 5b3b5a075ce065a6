export { ZipDeflate } from 'fflate';
