/**
 * The bodies of iterable sections other than `ram` and `dirty-bitmap` (docs/formats/stream.md, "Other iterable
 * sections"): each shows where it ends, so the decoder can skip it exactly. Their content is not decoded.
 */

import { MigrationError } from '../vm/migration-error.ts';
import { type ByteWindow, type Need, need, skip, takeU8, takeU16, takeU32, takeU64 } from './byte-window.ts';
import type { SectionHead } from './section.ts';

type BodyDecoder = (window: ByteWindow, section: SectionHead) => Generator<Need, void>;

/** Decoders by the idstr of the section. */
export const iterableBodies: ReadonlyMap<string, BodyDecoder> = new Map([
  ['spapr/htab', passHtab],
  ['s390-storage_attributes', passStorageAttributes],
  ['block', passBlock],
]);

function bad(window: ByteWindow, section: SectionHead, message: string): MigrationError {
  return new MigrationError('bad-iterable', message, { ...window.place(), section: section.name });
}

/** Skips a counted length, which must be below 2^53. */
function* skipCounted(window: ByteWindow, section: SectionHead): Generator<Need, void> {
  const length = yield* takeU64(window, 'a length');
  if (length > BigInt(Number.MAX_SAFE_INTEGER)) throw bad(window, section, `expected a length, got ${length}`);
  yield* skip(window, Number(length), `${section.name} data`);
}

function* skipString(window: ByteWindow): Generator<Need, void> {
  yield* skip(window, yield* takeU8(window, 'a name'), 'a name');
}

/** START: be32 shift. PART, END: be32 header. 0: groups follow until one is all zero. -1: nothing follows. */
function* passHtab(window: ByteWindow, section: SectionHead): Generator<Need, void> {
  const header = yield* takeU32(window, 'an htab header');
  if (section.kind === 'start' || header === 0xffff_ffff) return;
  if (header !== 0) throw bad(window, section, `expected htab header 0, got ${header}`);
  for (;;) {
    const index = yield* takeU32(window, 'an htab index');
    const valid = yield* takeU16(window, 'an htab count');
    const invalid = yield* takeU16(window, 'an htab count');
    if (index === 0 && valid === 0 && invalid === 0) return;
    yield* skip(window, valid * 16, 'htab entries');
  }
}

/** be64 words with flags in the low 12 bits. */
function* passStorageAttributes(window: ByteWindow, section: SectionHead): Generator<Need, void> {
  const Flag = { eos: 0x01, more: 0x02, error: 0x04, done: 0x08 };
  for (;;) {
    const flags = Number((yield* takeU64(window, 'storage attributes')) & 0xfffn);
    if (flags === Flag.eos) return;
    if (flags === Flag.more) yield* skipCounted(window, section);
    else if (flags !== Flag.done) {
      throw bad(window, section, `expected storage attributes, got flags 0x${flags.toString(16)}`);
    }
  }
}

/** be64 sector << 9 | flags, followed by a device's name and 1 MiB of data, progress, or zeros. EOS ends the body. */
function* passBlock(window: ByteWindow, section: SectionHead): Generator<Need, void> {
  const Flag = { deviceBlock: 0x01, eos: 0x02, progress: 0x04, zeroBlock: 0x08 };
  const blockBytes = 1 << 20;
  for (;;) {
    yield* need(window, 8, 'a block record');
    const flags = Number((yield* takeU64(window, 'a block record')) & 0x1ffn);
    if (flags & Flag.deviceBlock) {
      yield* skipString(window);
      if ((flags & Flag.zeroBlock) === 0) yield* skip(window, blockBytes, 'a disk block');
    } else if (flags & Flag.eos) return;
    else if ((flags & Flag.progress) === 0) {
      throw bad(window, section, `expected a block record, got flags 0x${flags.toString(16)}`);
    }
  }
}
