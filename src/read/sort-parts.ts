/**
 * Determines the role of each of several files in a migration, by its first bytes: the stream, multifd channels
 * (docs/formats/multifd.md), recoveries, preempt channels and return paths (docs/formats/postcopy.md).
 */
import type { ByteSource } from '../io/byte-source.ts';
import { findCompression } from '../io/compression.ts';
import { peek } from '../io/peeked-source.ts';
import { maxRamBytes } from '../vm/ram-block.ts';
import { multifdMagic } from '../wire/multifd-packet.ts';
import { RamFlag } from '../wire/ram-record.ts';
import { isReturnHead } from '../wire/return-path.ts';
import { recoveryStart, streamMagic } from '../wire/stream.ts';
import { isLibvirtMagic } from './container/libvirt-header.ts';
import { qcow2Magic } from './container/qcow2-header.ts';
import type { PartLists } from './parts.ts';

/** The possible roles of a file. `stream`: the one that begins the migration; `none`: not part of it. */
const partRoles = ['stream', 'channel', 'recovery', 'preempt', 'return-path', 'none'] as const;
export type PartRole = (typeof partRoles)[number];

/** The kind of a file by its first bytes; `unknown`: they do not show it. */
export type PartKind = Exclude<PartRole, 'none'> | 'unknown';

/** A file, its apparent kind, and its suggested role. */
export interface GuessedPart {
  /** Position in the given list. */
  index: number;
  name: string;
  kind: PartKind;
  role: PartRole;
  /** In bytes; undefined if unknown. */
  size: number | undefined;
}

/** A main input, and the inputs that belong to it. */
export interface ArrangedParts<Input> {
  main: Input;
  parts: PartLists<Input>;
}

/** The files do not show how they belong together. `parts` suggests how, in a likely order. */
export class UnclearPartsError extends Error {
  override readonly name = 'UnclearPartsError';
  readonly parts: readonly GuessedPart[];

  constructor(parts: readonly GuessedPart[]) {
    const said = parts.map(({ name, kind }) => `${name} (${kind})`).join(', ');
    super(`expected one file, or one stream and what belongs to it in a clear order, got ${said}`);
    this.parts = parts;
  }
}

/** The longest name of a block, and the bytes before it in a page record. */
const headLength = 8 + 1 + 255;

/**
 * Sorts files by their first bytes. A single file is opened as it is, whatever its first bytes.
 * @throws UnclearPartsError if there is more than one way; RangeError if there is none
 */
export async function sortParts<Input>(
  inputs: readonly Input[],
  openInput: (input: Input) => ByteSource | Promise<ByteSource>,
): Promise<ArrangedParts<Input>> {
  if (inputs.length === 1) return arrangeParts(inputs, ['stream']);
  const found: GuessedPart[] = [];
  for (const [index, input] of inputs.entries()) {
    const source = await openInput(input);
    try {
      const kind = await findPartKind(source);
      found.push({ index, name: source.name, kind, role: kind === 'unknown' ? 'none' : kind, size: source.size });
    } finally {
      await source.close();
    }
  }
  const parts = found.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  const count = (...kinds: PartKind[]) => parts.filter(({ kind }) => kinds.includes(kind)).length;
  if (count('stream', 'unknown') === 0) {
    throw new RangeError(`expected a migration stream and what belongs to it, got ${inputs.length} files without it`);
  }
  // A single file is the stream, in any container. Of several files only one can be.
  const main = parts.find(({ kind }) => kind === 'stream') ?? parts.find(({ kind }) => kind === 'unknown');
  for (const part of parts) if (part.kind === 'stream') part.role = 'none';
  if (main !== undefined) main.role = 'stream';
  const isClear = count('stream', 'unknown') === 1 && count('recovery') <= 1 && count('preempt') <= 1;
  if (!isClear) throw new UnclearPartsError(parts);
  return arrangeParts(
    parts.map(({ index }) => inputs[index] as Input),
    parts.map(({ role }) => role),
  );
}

/**
 * Combines files by the given roles. Recoveries, preempt channels and return paths keep their order. The main file is
 * the last recovery, or the stream. @throws RangeError if not exactly one file is the stream
 */
export function arrangeParts<Input>(inputs: readonly Input[], roles: readonly PartRole[]): ArrangedParts<Input> {
  const ofRole = (role: PartRole) => inputs.filter((_, i) => roles[i] === role);
  const [stream, ...others] = ofRole('stream');
  if (stream === undefined || others.length > 0) {
    throw new RangeError(`expected one file to be the stream, got ${stream === undefined ? 0 : others.length + 1}`);
  }
  const streams = [stream, ...ofRole('recovery')];
  return {
    main: streams.at(-1) as Input,
    parts: {
      channels: ofRole('channel'),
      resumeOf: streams.slice(0, -1),
      preempt: ofRole('preempt'),
      returnPath: ofRole('return-path'),
    },
  };
}

/**
 * Finds the kind of a file by its first bytes.
 * @internal Exported for tests with bytes that no set of files contains.
 */
export async function findPartKind(source: ByteSource): Promise<PartKind> {
  const { head } = await peek(source, 0, headLength, () => false);
  if (findCompression(head) !== undefined || isLibvirtMagic(head)) return 'stream';
  if (head.length < 4) return 'unknown';
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const magic = view.getUint32(0);
  if (magic === streamMagic || magic === qcow2Magic) return 'stream';
  if (magic === multifdMagic) return 'channel';
  if (magic >>> 8 === recoveryStart) return 'recovery';
  if (isReturnHead(view.getUint16(0), view.getUint16(2))) return 'return-path';
  return isPreemptHead(head, view) ? 'preempt' : 'unknown';
}

/** Flags of a record: offsets are whole pages, of 1 KiB at least. */
const flagMask = 0x3ff;

/** Whether these are the first bytes of a preempt channel: a page that names its block, or 7.2's EOS alone. */
function isPreemptHead(head: Uint8Array, view: DataView): boolean {
  if (head.length < 8) return false;
  const word = view.getBigUint64(0);
  if (word === BigInt(RamFlag.eos)) return head.length === 8;
  const flags = Number(word & BigInt(flagMask));
  if (word >= BigInt(maxRamBytes) || (flags !== RamFlag.page && flags !== RamFlag.zero)) return false;
  const length = head[8] ?? 0;
  const name = head.subarray(9, 9 + length);
  return length > 0 && name.length === length && name.every((byte) => byte >= 0x20);
}
