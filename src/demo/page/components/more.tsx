/** Long lists: their beginning, and more of them at a click. */
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { formatCount } from '../../../words/format.ts';

/** Entries at first; ten times as many at each click. */
const atFirst = 100;

/** The entries to show, and the button for more, if there are more. */
export function useMore<Each>(list: readonly Each[], least = 0): { shown: readonly Each[]; more: ComponentChildren } {
  const [count, setCount] = useState(atFirst);
  const shown = list.slice(0, Math.max(count, least));
  const more =
    shown.length === list.length ? null : (
      <button type="button" class="more" onClick={() => setCount(count * 10)}>
        Show more: {formatCount(list.length - shown.length)} are not listed
      </button>
    );
  return { shown, more };
}
