/** The movement keys that all widgets of the page share. */

/** How far each kind of key moves. */
interface KeySteps {
  /** Arrow left and right. Undefined if the widget has one column only. */
  column?: number;
  /** Arrow up and down. */
  line: number;
  /** Page Up and Page Down. */
  page: number;
}

/** Shortcuts with these keys belong to the browser. */
export const hasModifier = ({ ctrlKey, altKey, metaKey }: KeyboardEvent): boolean => ctrlKey || altKey || metaKey;

/** The distance that a key moves, infinite for Home and End. Undefined if it is not a movement key. */
export function stepOfKey(key: string, { column, line, page }: KeySteps): number | undefined {
  switch (key) {
    case 'ArrowLeft':
      return column === undefined ? undefined : -column;
    case 'ArrowRight':
      return column;
    case 'ArrowUp':
      return -line;
    case 'ArrowDown':
      return line;
    case 'PageUp':
      return -page;
    case 'PageDown':
      return page;
    case 'Home':
      return Number.NEGATIVE_INFINITY;
    case 'End':
      return Number.POSITIVE_INFINITY;
    default:
      return undefined;
  }
}
