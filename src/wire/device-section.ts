/**
 * The body of a device section (docs/formats/stream.md, "Where a device's state ends"). The body has no length. Its end
 * is found in one of these ways, the most reliable first: the size in the VM description, if a footer is right there;
 * the first footer of the section that a possible item follows; in a stream without footers, the first possible item,
 * which is a guess.
 */
import type { Boundary } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { type ByteWindow, concat, has, hasSoon, type Need } from './byte-window.ts';
import { canBeCommand } from './command.ts';
import {
  canBeHead,
  canBeItem,
  footerLength,
  isFooter,
  itemLookahead,
  type KnownSection,
  type SectionHead,
} from './section.ts';
import { SectionType } from './section-type.ts';
import { canBeDescription } from './vm-description.ts';

/** The largest body that is kept, in bytes. Larger ones are passed over. */
export const maxDeviceBody = 64 * 1024 * 1024;

/** The largest section id that a guess accepts. QEMU numbers sections in the order of their registration. */
const maxGuessedId = 0xffff;

/** What is known about the bodies of the stream. */
export interface BodyContext {
  known: Map<number, KnownSection>;
  /** Whether sections end with footers. Undefined until the first one ended. */
  footers: boolean | undefined;
  /** The end of the embedded stream that contains the section. */
  end: number | undefined;
}

export interface DeviceBody {
  /** Empty for a body that is not kept. */
  data: Uint8Array;
  /** Bytes of the body. */
  size: number;
  boundary: Boundary;
  footers: boolean;
}

/**
 * The bytes of a body as they come. A body of more than 64 MiB, and one that nobody needs, is counted only: then memory
 * stays bounded.
 */
class BodyBytes {
  size = 0;
  #parts: Uint8Array[] = [];
  #isKept: boolean;

  constructor(isKept: boolean) {
    this.#isKept = isKept;
  }

  /** Takes the unread bytes before an index of the window. */
  take(window: ByteWindow, end: number): void {
    this.size += end - window.position;
    this.#isKept &&= this.size <= maxDeviceBody;
    if (this.#isKept) this.#parts.push(window.bytes.slice(window.position, end));
    else this.#parts = [];
    window.position = end;
  }

  get data(): Uint8Array {
    return concat(this.#parts);
  }
}

/** Takes the body and its footer. `size` is the size in the description, if there is a description. */
export function* decodeDeviceBody(
  window: ByteWindow,
  section: SectionHead,
  context: BodyContext,
  size: number | undefined,
): Generator<Need, DeviceBody> {
  const start = window.offset;
  const isKept = section.kind === 'full';
  if (size !== undefined) {
    const body = new BodyBytes(isKept);
    const isThere = yield* takeDescribed(window, size, context, body);
    const footers = isThere ? yield* endsHere(window, section, context) : undefined;
    if (footers !== undefined) {
      if (footers) window.position += footerLength;
      return { data: body.data, size, boundary: 'description', footers };
    }
    // The description is wrong about this section: read it again, up to its footer.
    yield { kind: 'seek', offset: start };
  }
  const footers = context.footers ?? true;
  const body = new BodyBytes(isKept);
  yield* scanBody(window, section, context, footers, body);
  if (footers) window.position += footerLength;
  return { data: body.data, size: body.size, boundary: footers ? 'footer' : 'guess', footers };
}

/** Takes a body of a known size. Returns false if it cannot be there. */
function* takeDescribed(
  window: ByteWindow,
  size: number,
  context: BodyContext,
  body: BodyBytes,
): Generator<Need, boolean> {
  if (window.offset + size > Math.min(context.end ?? Number.POSITIVE_INFINITY, window.size)) return false;
  while (body.size < size) {
    if (window.available === 0 && !(yield* has(window, 1))) return false;
    body.take(window, window.position + Math.min(size - body.size, window.available));
  }
  return true;
}

/**
 * Whether the section ends at the position: true with a footer, false without one, undefined if it does not end there.
 */
function* endsHere(
  window: ByteWindow,
  section: SectionHead,
  context: BodyContext,
): Generator<Need, boolean | undefined> {
  yield* has(window, footerLength + itemLookahead);
  if (context.footers !== false && window.available >= footerLength && isFooter(window, window.position, section.id)) {
    return true;
  }
  return context.footers !== true && canBeItem(window, window.position, context.known) ? false : undefined;
}

/** Takes bytes until the section ends. Afterwards the position is at its footer, or at the next item. */
function* scanBody(
  window: ByteWindow,
  section: SectionHead,
  context: BodyContext,
  footers: boolean,
  body: BodyBytes,
): Generator<Need, void> {
  const start = window.offset;
  for (;;) {
    if (footers && window.available <= footerLength + itemLookahead) {
      const end = findCertainFooter(window, section, context);
      if (end !== undefined) return body.take(window, end);
    }
    const end = context.end ?? Number.POSITIVE_INFINITY;
    // Nothing behind a package matters, and a guest may wait for its end before it asks for the next page.
    const complete = !(yield* hasSoon(window, Math.min(footerLength + itemLookahead + 1, end - window.offset)));
    const isPackageThere = window.base + window.limit >= end;
    // If the look-ahead would leave the window, wait for more bytes, except at the end of the source or of a package.
    const readable = complete || isPackageThere ? window.limit : window.limit - footerLength - itemLookahead;
    const stop = Math.min(readable, end - window.base);
    const found = footers ? findFooter(window, section, context, stop) : findItem(window, context, stop, complete);
    const until = found ?? stop;
    body.take(window, until);
    if (found !== undefined) return;
    const overrun = window.offset === context.end;
    // A live source that is silent for a moment has not ended.
    if ((complete && window.ended) || overrun) {
      const code = overrun ? 'bad-device-section' : 'truncated';
      const message = `expected the end of section ${section.id} (${section.name}), got ${body.size} bytes without it`;
      throw new MigrationError(code, message, {
        ...window.place(code === 'truncated' ? window.offset : start),
        section: section.name,
      });
    }
  }
}

/** Index of the section's footer, if one begins before `stop` and a possible item follows it. */
function findFooter(window: ByteWindow, section: SectionHead, context: BodyContext, stop: number): number | undefined {
  const bytes = window.bytes.subarray(0, stop);
  for (let at = window.position; ; at++) {
    at = bytes.indexOf(SectionType.footer, at);
    if (at === -1) return undefined;
    if (at + footerLength > window.limit || !isFooter(window, at, section.id)) continue;
    const after = at + footerLength;
    if (context.end !== undefined && window.base + after >= context.end) {
      if (window.base + after === context.end) return at;
      continue;
    }
    if (canBeItem(window, after, context.known)) return at;
  }
}

/**
 * Index of the section's first footer, if what follows it is complete and leaves no doubt. So the last section of a live
 * stream does not wait for bytes that may never come.
 */
function findCertainFooter(window: ByteWindow, section: SectionHead, context: BodyContext): number | undefined {
  const bytes = window.bytes.subarray(0, window.limit);
  for (let at = bytes.indexOf(SectionType.footer, window.position); at !== -1; ) {
    const after = at + footerLength;
    if (after <= window.limit && isFooter(window, at, section.id)) {
      if (context.end !== undefined) return window.base + after === context.end ? at : undefined;
      const isCertain =
        bytes[after] === SectionType.eof
          ? canBeDescription(window, after + 1)
          : canBeItem(window, after, context.known);
      return isCertain ? at : undefined;
    }
    at = bytes.indexOf(SectionType.footer, at + 1);
  }
  return undefined;
}

/**
 * Index before `stop` of the first thing that can follow a body without a footer: a head with an unused id, the end of
 * the stream with or without a description, or, in a package, a command.
 */
function findItem(window: ByteWindow, context: BodyContext, stop: number, ended: boolean): number | undefined {
  const { bytes, view, limit } = window;
  // The 0x05 and the name of a subsection look like the end of a section id and its name. Real ids are small.
  const isNew = (id: number) => id <= maxGuessedId && !context.known.has(id);
  const hasEnded = [...context.known.values()].some(({ latest }) => latest === 'end');
  for (let at = window.position; at < stop; at++) {
    // All iterables start before any of them ends.
    if (hasEnded && bytes[at] === SectionType.start) continue;
    if (canBeHead(window, at) && isNew(view.getUint32(at + 1))) return at;
    if (context.end !== undefined) {
      if (canBeCommand(window, at)) return at;
    } else if (bytes[at] === SectionType.eof) {
      if (at + 1 === limit ? ended : canBeDescription(window, at + 1)) return at;
    }
  }
  return undefined;
}
