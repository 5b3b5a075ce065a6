/** Shows the beginning of a long list, and more of it at each click. */
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { formatCount } from '../../../words/format.ts';

/** Entries at first. Each click shows ten times as many. */
const atFirst = 100;

/** The entries to show, at least `least`, and a button if there are more. */
export function useMore<Each>(list: readonly Each[], least = 0): { shown: readonly Each[]; more: ComponentChildren } {
  const [count, setCount] = useState(atFirst);
  const shown = list.slice(0, Math.max(count, least));
  const more =
    shown.length === list.length ? null : (
      <button type="button" class="more" onClick={() => setCount(count * 10)}>
        Show more ({formatCount(list.length - shown.length)} not listed)
      </button>
    );
  return { shown, more };
}
