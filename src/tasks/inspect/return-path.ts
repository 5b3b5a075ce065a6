/**
 * Messages of a migration's destination: counts the messages of a return path, and compares them with the stream that was
 * read before.
 */
import type { ByteSource } from '../../io/byte-source.ts';
import type { MigrationFile } from '../../read/open.ts';
import { type Finding, MigrationError, makeFinding } from '../../vm/migration-error.ts';
import { bitmapLength } from '../../wire/mapped-ram.ts';
import { type ReturnMessage, ReturnType } from '../../wire/return-path.ts';
import type { FlowStats } from './flow-stats.ts';

/** The most messages that are listed; more are only counted. */
const maxListed = 100_000;

/** Messages of one connection. */
export interface InspectedReturnPath {
  source: string;
  /** Messages by their names. */
  counts: Record<string, number>;
  /** Bytes of RAM that were requested. */
  requestedBytes: number;
  /** Status of SHUT, 0 for success, if there was a SHUT. */
  shut: number | undefined;
  /** Bytes read. */
  length: number;
  messages: ReturnMessage[];
  /** Messages beyond the first 100,000. */
  messagesOmitted: number;
  /** The error that stopped the reading, if one did. */
  error: Finding | undefined;
}

/** Takes the faults of a return path. */
export type ReturnFindings = Pick<FlowStats['findings'], 'add'>;

/** Reads a whole return path. Its faults become findings of the stats, and of `others`. */
export async function readReturnPath(
  file: MigrationFile,
  source: ByteSource,
  stats: FlowStats,
  others: readonly ReturnFindings[] = [],
): Promise<InspectedReturnPath> {
  const counts: Record<string, number> = {};
  const path: InspectedReturnPath = {
    source: source.name,
    counts,
    requestedBytes: 0,
    shut: undefined,
    length: 0,
    messages: [],
    messagesOmitted: 0,
    error: undefined,
  };
  const add = (finding: Finding) => {
    for (const findings of [stats.findings, ...others]) findings.add(finding);
  };
  const note = (code: Finding['code'], text: string, offset: number): void => {
    add(makeFinding(code, text, { source: source.name, offset, coordinate: 'file' }));
  };
  try {
    for await (const message of file.returnMessages(source)) {
      const { name, type, offset, length, value = 0, bytes = 0 } = message;
      counts[name] = (counts[name] ?? 0) + 1;
      path.length = offset + length;
      path.requestedBytes += bytes;
      if (path.messages.length < maxListed) path.messages.push(message);
      else path.messagesOmitted++;
      const fault = contradiction(message, stats);
      if (fault !== undefined) note('bad-return-path', fault, offset);
      if (type !== ReturnType.shut) continue;
      path.shut = value;
      if (value !== 0) note('return-path-error', `the destination ends with status ${value}`, offset);
    }
    if (path.shut === undefined) note('return-path-open', 'the return path ends without SHUT', path.length);
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    path.error = error.toFinding();
    add(path.error);
  }
  return path;
}

/** How a message contradicts the stream; undefined if it does not, or if the stream lists no blocks. */
function contradiction({ type, block: idstr, start = 0, bytes = 0, bitmapBytes }: ReturnMessage, stats: FlowStats) {
  if (idstr === undefined || stats.blocks.length === 0) return undefined;
  const block = stats.blocks.find(({ block: each }) => each.idstr === idstr)?.block;
  if (block === undefined) return `a message about RAM block "${idstr}", which was not listed`;
  const { usedLength, pageSize } = block;
  if (type === ReturnType.recvBitmap) {
    const expected = bitmapLength(usedLength / pageSize);
    return bitmapBytes === expected
      ? undefined
      : `expected ${expected} bytes of bitmap of ${idstr}, got ${bitmapBytes}`;
  }
  const isWhole = start % pageSize === 0 && bytes % pageSize === 0 && bytes > 0;
  if (isWhole && start + bytes <= usedLength) return undefined;
  return `expected a request for whole pages of ${idstr}, got ${bytes} bytes from ${start} on`;
}
