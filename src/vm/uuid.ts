/** Writes a UUID of 32 hex digits with its dashes, in lower case. */
export const formatUuid = (digits: string): string =>
  digits.toLowerCase().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
