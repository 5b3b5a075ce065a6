/**
 * Sections (docs/formats/stream.md, "Sections"):
 *
 *     u8 type | be32 id | START, FULL only: counted idstr, be32 instance id, be32 version | body | u8 0x7e, be32 id
 *
 * Bodies have no length, so this file also defines what can follow one. The search for a body's end relies on that.
 */
import type { Section, SectionKind } from '../vm/flow.ts';
import { MigrationError, type Place } from '../vm/migration-error.ts';
import { type ByteWindow, has, type Need, need, takeString, takeU32 } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';
import { maxCommand } from './command.ts';
import { SectionType } from './section-type.ts';
import { canBeDescription } from './vm-description.ts';

const kinds: Record<number, SectionKind> = { 1: 'start', 2: 'part', 3: 'end', 4: 'full' };
const types: Record<SectionKind, number> = { start: 1, part: 2, end: 3, full: 4 };

/** The most sections in a stream. QEMU guests have tens to hundreds. */
const maxSections = 16_384;

/** A section that START or FULL introduced. */
export interface KnownSection {
  name: string;
  instanceId: number;
  versionId: number;
  /** FULL for devices; START, PART or END for the latest part of an iterable. */
  latest: SectionKind;
}

export type SectionHead = Omit<Section, 'length'>;

/**
 * Decodes a section head, including its type byte, and updates `known`.
 * @throws MigrationError `bad-section` for an id that is unknown, ended, or taken by another section.
 */
export function* decodeSectionHead(
  window: ByteWindow,
  known: Map<number, KnownSection>,
  packaged: boolean,
): Generator<Need, SectionHead> {
  const offset = window.offset;
  yield* need(window, 5, 'a section head');
  const kind = kinds[window.bytes[window.position] as number] as SectionKind;
  const id = window.view.getUint32(window.position + 1);
  window.position += 5;
  const place = (): Place => window.place(offset);
  if (kind === 'part' || kind === 'end') {
    const section = known.get(id);
    if (section === undefined)
      throw new MigrationError('bad-section', `section ${id} continues (${kind}), but was never started`, place());
    if (section.latest === 'end') {
      throw new MigrationError(
        'bad-section',
        `section ${id} (${section.name}) continues (${kind}), but has ended`,
        place(),
      );
    }
    section.latest = kind;
    const { name, instanceId, versionId } = section;
    return { kind, id, name, instanceId, versionId, offset, packaged };
  }
  const name = yield* takeString(window, 'a section name');
  const instanceId = yield* takeU32(window, 'an instance id');
  const versionId = yield* takeU32(window, 'a section version');
  const other = known.get(id);
  if (other !== undefined && (other.name !== name || other.instanceId !== instanceId)) {
    throw new MigrationError(
      'bad-section',
      `section id ${id} of "${name}" is already used by "${other.name}"`,
      place(),
    );
  }
  if (other === undefined && known.size >= maxSections) {
    throw new MigrationError(
      'limit-exceeded',
      `expected at most ${maxSections} sections with ids of their own`,
      place(),
    );
  }
  known.set(id, { name, instanceId, versionId, latest: kind });
  return { kind, id, name, instanceId, versionId, offset, packaged };
}

/**
 * Encodes a section's head, including its type byte; only START and FULL have name, instance and version. The body
 * follows.
 */
export function encodeSectionHead(out: ByteWriter, section: Pick<Section, 'kind' | 'id'> & Partial<Section>): void {
  out.u8(types[section.kind]).u32(section.id);
  if (section.kind === 'part' || section.kind === 'end') return;
  out
    .string(section.name ?? '')
    .u32(section.instanceId ?? 0)
    .u32(section.versionId ?? 0);
}

/** Bytes of a footer. */
export const footerLength = 5;

/** Encodes the footer that ends the section with this id. Machine types before 2.4 have none. */
export function encodeFooter(out: ByteWriter, id: number): void {
  out.u8(SectionType.footer).u32(id);
}

/** Whether the footer of section `id` begins at index `at`. The window must contain its 5 bytes. */
export function isFooter(window: ByteWindow, at: number, id: number): boolean {
  return window.bytes[at] === SectionType.footer && window.view.getUint32(at + 1) === id;
}

/** The most bytes that {@link canBeItem} looks at: a section head with a name of 255 bytes. */
export const itemLookahead = 1 + 4 + 1 + 255 + 8;

/** How many zeros after EOF count as padding of the storage. */
const paddingZeros = 64;

/**
 * Whether the stream can end at index `at`: EOF, then nothing, a description, or padding. EOF alone proves little:
 * timers often hold a small number followed by zeros, which looks like the footer of section 0 and an EOF.
 */
function canBeEnd(window: ByteWindow, at: number): boolean {
  const { bytes, limit } = window;
  if (at + 1 === limit || canBeDescription(window, at + 1)) return true;
  return bytes.subarray(at + 1, Math.min(limit, at + 1 + paddingZeros)).every((byte) => byte === 0);
}

/** Whether an item of a stream can begin at index `at`. Bytes beyond the limit count as no. */
export function canBeItem(window: ByteWindow, at: number, known: Map<number, KnownSection>): boolean {
  const { bytes, view, limit } = window;
  if (at >= limit) return false;
  switch (bytes[at]) {
    case SectionType.eof:
      return canBeEnd(window, at);
    case SectionType.part:
    case SectionType.end:
      return at + 5 <= limit && known.has(view.getUint32(at + 1));
    case SectionType.command:
      return at + 3 <= limit && view.getUint16(at + 1) >= 1 && view.getUint16(at + 1) <= maxCommand;
    default:
      return canBeHead(window, at);
  }
}

/** Whether a START or FULL head can begin at index `at`: a printable name, and enough bytes for the rest. */
export function canBeHead(window: ByteWindow, at: number): boolean {
  const { bytes, limit } = window;
  if (bytes[at] !== SectionType.start && bytes[at] !== SectionType.full) return false;
  if (at + 6 > limit) return false;
  const length = bytes[at + 5] as number;
  if (length === 0 || at + 6 + length + 8 > limit) return false;
  for (let i = at + 6; i < at + 6 + length; i++) {
    if ((bytes[i] as number) < 0x20 || (bytes[i] as number) > 0x7e) return false;
  }
  return true;
}

/**
 * Takes the footer of an iterable's part, whose end is known exactly. Returns whether this stream has footers.
 * `footers` is what earlier sections showed.
 */
export function* decodeFooter(
  window: ByteWindow,
  section: SectionHead,
  footers: boolean | undefined,
  known: Map<number, KnownSection>,
): Generator<Need, boolean> {
  if (footers === false) return false;
  const enough = yield* has(window, footerLength);
  if (enough && isFooter(window, window.position, section.id)) {
    window.position += footerLength;
    return true;
  }
  const first = window.available > 0 ? window.bytes[window.position] : undefined;
  if (first === SectionType.footer && enough) {
    const id = window.view.getUint32(window.position + 1);
    throw new MigrationError('bad-footer', `expected the footer of section ${section.id}, got that of ${id}`, {
      ...window.place(),
      section: section.name,
    });
  }
  if (first === SectionType.footer || first === undefined) yield* need(window, footerLength, 'a section footer');
  yield* has(window, itemLookahead);
  if (footers === undefined && canBeItem(window, window.position, known)) return false;
  throw new MigrationError('bad-footer', `expected the footer of section ${section.id} (${section.name})`, {
    ...window.place(),
    section: section.name,
  });
}
