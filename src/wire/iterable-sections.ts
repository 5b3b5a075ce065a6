/**
 * The bodies of iterable sections other than `ram` and `dirty-bitmap` (docs/formats/stream.md, "Other iterable
 * sections"): each shows where it ends, so the decoder can skip it exactly. Their content is not decoded.
 */

import { MigrationError } from '../vm/migration-error.ts';
import { type ByteWindow, has, type Need, need, skip, takeU8, takeU16, takeU32, takeU64 } from './byte-window.ts';
import { footerLength, isFooter, type SectionHead } from './section.ts';

/** Passes over a body. Returns false at bytes that it does not know: from there the footer must be found. */
type BodyDecoder = (window: ByteWindow, section: SectionHead) => Generator<Need, boolean>;

/** Decoders by the idstr of the section. */
const iterableBodies: ReadonlyMap<string, BodyDecoder> = new Map<string, BodyDecoder>([
  ['spapr/htab', passHtab],
  ['s390-storage_attributes', passStorageAttributes],
  ['block', passBlock],
  ['pbs-state', passCounted],
]);

/** The decoder of an iterable section, if its body shows where it ends. */
export function iterableBodyOf({ name, kind }: Pick<SectionHead, 'name' | 'kind'>): BodyDecoder | undefined {
  if (kind === 'full') return undefined;
  return /(^|\/)vfio$/.test(name) ? passVfio : iterableBodies.get(name);
}

function bad(window: ByteWindow, section: SectionHead, message: string): MigrationError {
  return new MigrationError('bad-iterable', message, { ...window.place(), section: section.name });
}

/** Skips a counted length, which must be below 2^53. */
function* skipCounted(window: ByteWindow, section: SectionHead): Generator<Need, void> {
  const length = yield* takeU64(window, 'a length');
  if (length > BigInt(Number.MAX_SAFE_INTEGER)) throw bad(window, section, `expected a length, got ${length}`);
  yield* skip(window, Number(length), `${section.name} data`);
}

/** be64 length, data: the state of Proxmox' backup driver. */
function* passCounted(window: ByteWindow, section: SectionHead): Generator<Need, true> {
  yield* skipCounted(window, section);
  return true;
}

/** The flags of VFIO. They begin each record. */
const Vfio = {
  endOfState: 0xffffffffef100001n,
  configState: 0xffffffffef100002n,
  setupState: 0xffffffffef100003n,
  dataState: 0xffffffffef100004n,
  initDataSent: 0xffffffffef100005n,
} as const;

/**
 * Records of VFIO: a be64 flag; DATA_STATE has a be64 length and data. END_OF_STATE ends the body. CONFIG_STATE has no
 * length: its body is small, and its end must be found.
 */
function* passVfio(window: ByteWindow, section: SectionHead): Generator<Need, boolean> {
  for (;;) {
    if ((yield* has(window, footerLength)) && isFooter(window, window.position, section.id)) return true;
    if (!(yield* has(window, 8))) return false;
    const flag = window.view.getBigUint64(window.position);
    if (flag === Vfio.dataState) {
      window.position += 8;
      yield* skipCounted(window, section);
    } else if (flag === Vfio.endOfState || flag === Vfio.setupState || flag === Vfio.initDataSent) {
      window.position += 8;
      if (flag === Vfio.endOfState) return true;
    } else return false;
  }
}

function* skipString(window: ByteWindow): Generator<Need, void> {
  yield* skip(window, yield* takeU8(window, 'a name'), 'a name');
}

/** START: be32 shift. PART, END: be32 header. 0: groups follow until one is all zero. -1: nothing follows. */
function* passHtab(window: ByteWindow, section: SectionHead): Generator<Need, true> {
  const header = yield* takeU32(window, 'an htab header');
  if (section.kind === 'start' || header === 0xffff_ffff) return true;
  if (header !== 0) throw bad(window, section, `expected htab header 0, got ${header}`);
  for (;;) {
    const index = yield* takeU32(window, 'an htab index');
    const valid = yield* takeU16(window, 'an htab count');
    const invalid = yield* takeU16(window, 'an htab count');
    if (index === 0 && valid === 0 && invalid === 0) return true;
    yield* skip(window, valid * 16, 'htab entries');
  }
}

/** be64 words with flags in the low 12 bits. */
function* passStorageAttributes(window: ByteWindow, section: SectionHead): Generator<Need, true> {
  const Flag = { eos: 0x01, more: 0x02, error: 0x04, done: 0x08 };
  for (;;) {
    const flags = Number((yield* takeU64(window, 'storage attributes')) & 0xfffn);
    if (flags === Flag.eos) return true;
    if (flags === Flag.more) yield* skipCounted(window, section);
    else if (flags !== Flag.done) {
      throw bad(window, section, `expected storage attributes, got flags 0x${flags.toString(16)}`);
    }
  }
}

/** be64 sector << 9 | flags, followed by a device's name and 1 MiB of data, progress, or zeros. EOS ends the body. */
function* passBlock(window: ByteWindow, section: SectionHead): Generator<Need, true> {
  const Flag = { deviceBlock: 0x01, eos: 0x02, progress: 0x04, zeroBlock: 0x08 };
  const blockBytes = 1 << 20;
  for (;;) {
    yield* need(window, 8, 'a block record');
    const flags = Number((yield* takeU64(window, 'a block record')) & 0x1ffn);
    if (flags & Flag.deviceBlock) {
      yield* skipString(window);
      if ((flags & Flag.zeroBlock) === 0) yield* skip(window, blockBytes, 'a disk block');
    } else if (flags & Flag.eos) return true;
    else if ((flags & Flag.progress) === 0) {
      throw bad(window, section, `expected a block record, got flags 0x${flags.toString(16)}`);
    }
  }
}
