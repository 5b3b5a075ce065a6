/** Keeps the current row of a tree in sight, and moves the focus to it when a key asks for that. */
import { useLayoutEffect, useRef } from 'preact/hooks';

type Tree = { current: HTMLElement | null };

/** `current` is the key of the current row. The result moves the focus after the next change of `current`. */
export function useTreeFocus(tree: Tree, current: string): () => void {
  const isToFocus = useRef(false);
  useLayoutEffect(() => {
    if (current === '') return;
    tree.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' });
  }, [current]);
  useLayoutEffect(() => {
    if (!isToFocus.current) return;
    isToFocus.current = false;
    (tree.current?.querySelector('[tabindex="0"]') as HTMLElement | null)?.focus();
  });
  return () => {
    isToFocus.current = true;
  };
}
