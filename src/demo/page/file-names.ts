/** Names of the files that the page saves. */

/** Characters of a block's name that are used at most. */
const longestName = 80;

/** The name of the open file without its extension, as the beginning of the names of all outputs. */
export function stemOf(name: string): string {
  // A member of an archive is called ARCHIVE#MEMBER.
  const own = name.split(/[#/]/).at(-1) ?? '';
  return own.replace(/\.(bin|migration|stream|mapped-ram|img|save|gz|zst|xz)$/, '') || 'guest';
}

/** A name from a migration file as part of a file name, without forbidden characters and not too long. */
export const forFileName = (name: string): string =>
  name.replace(/[/\\:*?"<>|\p{Cc}\p{Cf}]/gu, '_').slice(0, longestName);
