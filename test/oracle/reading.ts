import { SlowReaderError, type SlowResult, slowRead } from './slow-reader.ts';

/** One page of the result. */
export function pageOf(result: SlowResult, page: number, block = 0): Uint8Array {
  const { content, pageSize } = result.blocks[block]!;
  return content.subarray(page * pageSize, (page + 1) * pageSize);
}

/** The message of the SlowReaderError for these bytes; rethrows any other error. */
export function rejection(bytes: Uint8Array, offset = 0): string {
  try {
    slowRead(bytes, offset);
  } catch (error) {
    if (error instanceof SlowReaderError) return error.message;
    throw error;
  }
  return 'was read';
}
