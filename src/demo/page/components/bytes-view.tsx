/**
 * Bytes in lines, of which only those in sight exist. What is too long for a browser's scroll bar is scrolled line by line as
 * well, and the bar then stands for shares of it.
 */
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { addressDigits, asciiBytes, hexAddress, hexLine } from '../../../words/hex-dump.ts';
import type { ByteCache } from '../byte-cache.ts';

export type BytesMode = 'hex' | 'text';

interface Props {
  cache: ByteCache;
  /** What it is compared with, at the same offsets. */
  other: ByteCache | undefined;
  label: string;
  mode: BytesMode;
  /** Where to go: an object of its own each time. */
  goTo: { offset: number; length: number };
}

/** Browsers make no boxes that are much higher than that. */
const highest = 8_000_000;
/** Room for a line of 16 bytes, in characters. */
const wideLine = 79;

export function BytesView({ cache, other, label, mode, goTo }: Props) {
  const scroller = useRef<HTMLElement>(null);
  const [room, setRoom] = useState({ lines: 20, isWide: true, lineHeight: 18 });
  const [line, setLine] = useState(0);
  const lastTop = useRef(0);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const measure = () => {
      const probe = element.querySelector('.probe') as HTMLElement;
      const { width, height: lineHeight } = probe.getBoundingClientRect();
      if (lineHeight === 0) return;
      setRoom({
        lines: Math.ceil(element.clientHeight / lineHeight),
        isWide: element.clientWidth >= (width / 10) * wideLine + 16,
        lineHeight,
      });
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const { lineHeight } = room;
  const perLine = (room.isWide ? 16 : 8) * (mode === 'text' ? 4 : 1);
  const size = cache.reader.size ?? goTo.offset + (64 << 10);
  const lines = Math.ceil(size / perLine);
  const last = Math.max(0, lines - room.lines + 1);
  const first = Math.min(Math.max(0, Math.floor(line)), last);
  const full = lines * lineHeight;
  const isScaled = full > highest;

  /** Shows lines from one on, and sets the scroll bar to where they are. */
  const show = (next: number) => {
    const clamped = Math.min(Math.max(0, next), last);
    setLine(clamped);
    const element = scroller.current;
    if (element === null) return;
    const top = isScaled ? (clamped / Math.max(1, last)) * (highest - element.clientHeight) : clamped * lineHeight;
    element.scrollTop = top;
    lastTop.current = element.scrollTop;
  };

  // Only when it is told to go somewhere, or lines change their length
  useEffect(() => {
    // The line stands a little below the top, so that what is before it is seen, too.
    const target = Math.floor(goTo.offset / perLine);
    const isInSight = target >= first && target < first + room.lines - 2;
    if (!isInSight || lastTop.current === 0) show(goTo.length > 0 ? target - 2 : target);
  }, [goTo, perLine, cache]);

  const offset = first * perLine;
  const length = Math.min(size - offset, room.lines * perLine);
  useEffect(() => {
    cache.want(offset, length);
    other?.want(offset, length);
  }, [cache, other, offset, length]);
  // Read, so that new bytes are shown.
  void cache.revision.value;
  void other?.revision.value;

  const onScroll = () => {
    const top = scroller.current?.scrollTop ?? 0;
    const moved = top - lastTop.current;
    if (moved === 0) return;
    lastTop.current = top;
    const element = scroller.current as HTMLElement;
    if (!isScaled) setLine(top / lineHeight);
    else if (Math.abs(moved) < 2 * element.clientHeight && top > 0) setLine((now) => now + moved / lineHeight);
    else setLine((top / (highest - element.clientHeight)) * last);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const page = Math.max(1, room.lines - 2);
    const steps: Record<string, number> = {
      ArrowUp: -1,
      ArrowDown: 1,
      PageUp: -page,
      PageDown: page,
      Home: Number.NEGATIVE_INFINITY,
      End: Number.POSITIVE_INFINITY,
    };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    show(first + step);
  };

  const digits = addressDigits(size);
  const shown = [];
  for (let i = 0; i < room.lines && first + i < lines; i++) {
    const at = (first + i) * perLine;
    const bytes = cache.get(at, perLine);
    shown.push(
      bytes === undefined || bytes.length === 0 ? (
        <div key={at} class="line is-unread">
          {hexAddress(at, digits)}
        </div>
      ) : (
        <Line key={at} {...{ at, bytes, digits, perLine, mode }} other={other?.get(at, perLine)} mark={goTo} />
      ),
    );
  }
  return (
    <section
      ref={scroller}
      class="bytes-view"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, also with keys
      tabIndex={0}
      aria-label={label}
      data-test="bytes"
      onScroll={onScroll}
      onKeyDown={onKeyDown}
    >
      <div style={{ height: `${Math.min(full, highest)}px` }}>
        <div class="bytes-lines">{shown}</div>
      </div>
      <span class="probe" aria-hidden="true">
        0000000000
      </span>
    </section>
  );
}

interface LineProps {
  at: number;
  bytes: Uint8Array;
  digits: number;
  perLine: number;
  mode: BytesMode;
  other: Uint8Array | undefined;
  mark: { offset: number; length: number };
}

function Line({ at, bytes, digits, perLine, mode, other, mark }: LineProps) {
  const text =
    mode === 'hex'
      ? hexLine(at, bytes, digits, perLine)
      : `${hexAddress(at, digits)}  ${asciiBytes(bytes).replaceAll('.', '·')}`;
  const kinds = Array.from(bytes, (byte, i) => {
    if (other !== undefined && other[i] !== byte) return 'differs';
    return at + i >= mark.offset && at + i < mark.offset + mark.length ? 'marked' : '';
  });
  if (kinds.every((kind) => kind === '')) return <div class="line">{text}</div>;
  // Where byte i stands in the line: in hex, and as text.
  const columns: [column: number, width: number, kind: string][] = [];
  const textAt = mode === 'hex' ? digits + perLine * 3 + perLine / 8 + 3 : digits + 2;
  for (const [i, kind] of kinds.entries()) {
    if (kind === '') continue;
    if (mode === 'hex') columns.push([digits + 2 + 3 * i + Math.floor(i / 8), 2, kind]);
    columns.push([textAt + i, 1, kind]);
  }
  columns.sort(([a], [b]) => a - b);
  const parts = [];
  let done = 0;
  for (const [column, width, kind] of columns) {
    parts.push(text.slice(done, column), <mark class={kind}>{text.slice(column, column + width)}</mark>);
    done = column + width;
  }
  return (
    <div class="line">
      {parts}
      {text.slice(done)}
    </div>
  );
}
