/** A map of memory on the terminal: rows of characters. Each character stands for a range of pages. */
const mapColumns = 64;
/** The most characters of a map. */
export const mapCells = mapColumns * 16;

/** Puts the characters, painted or not, in rows. */
export function drawRows(characters: readonly string[]): string {
  const rows: string[] = [];
  for (let i = 0; i < characters.length; i += mapColumns) {
    rows.push(`  |${characters.slice(i, i + mapColumns).join('')}|`);
  }
  return rows.join('\n');
}
