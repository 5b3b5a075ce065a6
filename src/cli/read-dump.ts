/** The hex dump of `vmferry read`, with marks where memory is missing. */
import type { MissingRam } from '../store/missing-ram.ts';
import type { ContentPiece } from '../store/ram-content.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { HexDump } from '../words/hex-dump.ts';
import { parts } from './output.ts';
import { hideProgress } from './progress.ts';
import { writeOut } from './run.ts';

/** A range of a RAM block. */
export interface DumpedRange {
  block: RamBlock;
  at: number;
  missing: MissingRam | undefined;
  pieces(): AsyncGenerator<ContentPiece, void>;
}

/** Prints ranges one after the other. */
export async function printDump(dump: HexDump, ranges: readonly DumpedRange[]): Promise<void> {
  const print = (text: string) => {
    hideProgress();
    return writeOut(text);
  };
  for (const range of ranges) {
    for await (const { length, bytes, isMissing } of markedPieces(range)) {
      if (isMissing) await print(dump.missing(length));
      else if (bytes === undefined) await print(dump.zeros(length));
      else for (const part of parts(bytes, 64 * 1024)) await print(dump.bytes(part));
    }
  }
  await print(dump.end());
}

/** The pieces of a range, cut where missing pages begin and end. */
async function* markedPieces(range: DumpedRange): AsyncGenerator<ContentPiece & { isMissing: boolean }, void> {
  const { block, missing } = range;
  const { pageSize } = block;
  let at = range.at;
  for await (const { length, bytes } of range.pieces()) {
    const end = at + length;
    const cut = (to: number, isMissing: boolean) => {
      const piece = { length: to - at, bytes: bytes?.subarray(at - (end - length), to - (end - length)), isMissing };
      at = to;
      return piece;
    };
    for (const run of missing?.within(block, Math.floor(at / pageSize), Math.ceil(end / pageSize)) ?? []) {
      if (run.first * pageSize > at) yield cut(run.first * pageSize, false);
      yield cut(Math.min(end, run.end * pageSize), true);
    }
    if (at < end) yield cut(end, false);
  }
}
