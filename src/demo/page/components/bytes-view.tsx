/** Bytes in lines that scroll. Only the visible lines exist, so that sources of any size can be shown. */
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { addressDigits, hexAddress } from '../../../words/hex-dump.ts';
import type { ByteCache } from '../byte-cache.ts';
import { hasModifier, stepOfKey } from '../keys.ts';
import { contentHeight } from '../line-scroll.ts';
import { ByteLine, type BytesMode } from './byte-line.tsx';
import { useLineBox } from './line-box.ts';
import { useScrolledLines } from './scrolled-lines.ts';

interface Range {
  offset: number;
  length: number;
}

interface Props {
  cache: ByteCache;
  /** What the bytes are compared with, at the same offsets. */
  other: ByteCache | undefined;
  label: string;
  mode: BytesMode;
  /** The range to scroll to and to mark. A new object scrolls there again. */
  goTo: Range;
}

/** Lines above the range that the view scrolls to. */
const linesAbove = 2;
/** Assumed bytes after the range if the size is not known yet. */
const assumedBytes = 64 << 10;

export function BytesView({ cache, other, label, mode, goTo }: Props) {
  const scroller = useRef<HTMLElement>(null);
  const { lines: visible, isWide, lineHeight } = useLineBox(scroller);
  const perLine = (isWide ? 16 : 8) * (mode === 'text' ? 4 : 1);
  const size = cache.reader.size ?? goTo.offset + assumedBytes;
  const area = { lines: Math.ceil(size / perLine), visible, lineHeight };
  const { first, show, onScroll, isAtTop } = useScrolledLines(scroller, area);

  // Only a new range, a new source or another line length scrolls the view.
  useEffect(() => {
    const target = Math.floor(goTo.offset / perLine);
    const isInSight = target >= first && target < first + visible - linesAbove;
    if (!isInSight || isAtTop()) show(goTo.length > 0 ? target - linesAbove : target);
  }, [goTo, perLine, cache]);

  const offset = first * perLine;
  useBytes(cache, other, { offset, length: Math.min(size - offset, visible * perLine) });

  const onKeyDown = (event: KeyboardEvent) => {
    const step = stepOfKey(event.key, { line: 1, page: Math.max(1, visible - linesAbove) });
    if (step === undefined || hasModifier(event)) return;
    event.preventDefault();
    show(first + step);
  };
  const count = Math.min(visible, area.lines - first);
  return (
    <section
      ref={scroller}
      class="bytes-view"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: the keyboard must be able to scroll it
      tabIndex={0}
      aria-label={label}
      data-test="bytes"
      onScroll={onScroll}
      onKeyDown={onKeyDown}
    >
      <div style={{ height: `${contentHeight(area)}px` }}>
        <div class="bytes-lines">{linesOf({ cache, other, mode, perLine, size, first, count, mark: goTo })}</div>
      </div>
      <span class="probe" aria-hidden="true">
        0000000000
      </span>
    </section>
  );
}

/** Has the visible bytes read, and shows them when they arrive. */
function useBytes(cache: ByteCache, other: ByteCache | undefined, { offset, length }: Range): void {
  useEffect(() => {
    cache.want(offset, length);
    other?.want(offset, length);
  }, [cache, other, offset, length]);
  // Reading the signals subscribes the component to them.
  void cache.revision.value;
  void other?.revision.value;
}

interface LinesInSight {
  cache: ByteCache;
  other: ByteCache | undefined;
  mode: BytesMode;
  perLine: number;
  size: number;
  first: number;
  count: number;
  mark: Range;
}

function linesOf({ cache, other, mode, perLine, size, first, count, mark }: LinesInSight): ComponentChildren {
  const digits = addressDigits(size);
  const lines = [];
  for (let line = first; line < first + count; line++) {
    const at = line * perLine;
    const bytes = cache.get(at, perLine);
    lines.push(
      bytes === undefined || bytes.length === 0 ? (
        <div key={at} class="line is-unread">
          {hexAddress(at, digits)}
        </div>
      ) : (
        <ByteLine key={at} {...{ at, bytes, digits, perLine, mode, mark }} other={other?.get(at, perLine)} />
      ),
    );
  }
  return lines;
}
