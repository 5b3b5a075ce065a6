/** Bytes as hex without spaces, as JSON has them. */
const digits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

export const toHex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => digits[byte]).join('');
