/** Facts about the page under the cursor of the map. Screen readers read them aloud when the cursor moves. */
import { useEffect, useState } from 'preact/hooks';
import { formatCount, formatHex } from '../../../words/format.ts';
import type { PageFacts } from '../../protocol.ts';
import { announce } from '../announce.ts';
import { useMachine } from './machine-context.ts';

export function CursorLine() {
  const { map } = useMachine();
  const [facts, setFacts] = useState<PageFacts | undefined>();
  const [block, page, view] = [map.block.value, map.cursor.value, map.view];
  const { value: revision } = map.revision;
  // Later, more may be known about the same page.
  useEffect(() => {
    let isStale = false;
    void map.facts(block, page).then(
      (found) => {
        if (!isStale) setFacts(found);
      },
      () => {},
    );
    return () => {
      isStale = true;
    };
  }, [map, block, page, revision]);
  const text = facts === undefined || view === undefined ? '' : describePage(facts, view.pageSize);
  useEffect(() => announce(text), [text]);
  return (
    <p class="cursor-line" data-test="cursor">
      {text || ' '}
    </p>
  );
}

function describePage({ page, state, pass, entropy, fileOffset }: PageFacts, pageSize: number): string {
  const parts = [`page ${formatCount(page)} at ${formatHex(page * pageSize)}`, state === 'xbzrle' ? 'XBZRLE' : state];
  if (pass !== undefined) parts.push(`last sent in pass ${pass}`);
  if (entropy !== undefined) parts.push(`${entropy.toFixed(2)} bits per byte`);
  if (fileOffset !== undefined) parts.push(`file offset ${formatHex(fileOffset)}`);
  return parts.join(', ');
}
