/**
 * Commands (docs/formats/stream.md, "Commands"): u8 0x08 | be16 code | be16 length | payload.
 */
import type { Command } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { type ByteWindow, type Need, takeBytes, takeU16 } from './byte-window.ts';
import type { ByteWriter } from './byte-writer.ts';

/** The numbers of the commands. */
export const CommandCode = {
  openReturnPath: 1,
  ping: 2,
  postcopyAdvise: 3,
  postcopyListen: 4,
  postcopyRun: 5,
  postcopyRamDiscard: 6,
  packaged: 7,
  enableColo: 8,
  postcopyResume: 9,
  recvBitmap: 10,
  switchoverStart: 11,
} as const;

export const maxCommand = CommandCode.switchoverStart;

/** Names, and the allowed payload lengths in bytes. Undefined: any length. */
const commands: Record<number, { name: string; lengths?: readonly number[] }> = {
  1: { name: 'OPEN_RETURN_PATH', lengths: [0] },
  2: { name: 'PING', lengths: [4] },
  3: { name: 'POSTCOPY_ADVISE', lengths: [16, 0] },
  4: { name: 'POSTCOPY_LISTEN', lengths: [0] },
  5: { name: 'POSTCOPY_RUN', lengths: [0] },
  6: { name: 'POSTCOPY_RAM_DISCARD' },
  7: { name: 'PACKAGED', lengths: [4] },
  8: { name: 'ENABLE_COLO', lengths: [0] },
  9: { name: 'POSTCOPY_RESUME', lengths: [0] },
  10: { name: 'RECV_BITMAP' },
  11: { name: 'SWITCHOVER_START', lengths: [0] },
};

/** Decodes a command whose type byte has been read. */
export function* decodeCommand(window: ByteWindow): Generator<Need, Command> {
  const offset = window.offset - 1;
  const code = yield* takeU16(window, 'a command');
  const length = yield* takeU16(window, 'a command length');
  const known = commands[code];
  if (known === undefined) throw new MigrationError('bad-command', `unknown command ${code}`, window.place(offset));
  const { name, lengths } = known;
  if (lengths !== undefined && !lengths.includes(length)) {
    const expected = lengths.join(' or ');
    throw new MigrationError(
      'bad-command',
      `expected ${expected} bytes for ${name}, got ${length}`,
      window.place(offset),
    );
  }
  return { code, name, offset, payload: yield* takeBytes(window, length, `the payload of ${name}`) };
}

/** Whether a command can begin at index `at` of the window: a known code, with a length that it allows. */
export function canBeCommand({ bytes, view, limit }: ByteWindow, at: number): boolean {
  if (at + 5 > limit || bytes[at] !== 0x08) return false;
  const known = commands[view.getUint16(at + 1)];
  return known !== undefined && (known.lengths?.includes(view.getUint16(at + 3)) ?? true);
}

/** Encodes a command, including its type byte. The payload has at most 65,535 bytes. */
export function encodeCommand(out: ByteWriter, code: number, payload: Uint8Array = new Uint8Array()): void {
  out.u8(0x08).u16(code).u16(payload.length).raw(payload);
}

/** The page sizes of POSTCOPY_ADVISE: the OR of all RAM blocks' page sizes, and the target page size. */
export function readAdvise(payload: Uint8Array): { pageSizes: bigint; targetPageSize: bigint } | undefined {
  if (payload.length !== 16) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, 16);
  return { pageSizes: view.getBigUint64(0), targetPageSize: view.getBigUint64(8) };
}
