/** A map of memory on the terminal: rows of characters, each of which stands for a range of pages. */
const mapColumns = 64;
/** Characters of a map at most. */
export const mapCells = mapColumns * 16;

/** The characters, which may be painted, in rows. */
export function drawRows(characters: readonly string[]): string {
  const rows: string[] = [];
  for (let i = 0; i < characters.length; i += mapColumns) {
    rows.push(`  |${characters.slice(i, i + mapColumns).join('')}|`);
  }
  return rows.join('\n');
}
