import { describe, expect, it } from 'vitest';
import { ByteCache } from '../../../src/demo/page/byte-cache.ts';
import { ViewerError } from '../../../src/demo/protocol.ts';

const piece = 64 << 10;

/** A cache of a source whose bytes encode their piece, and the reads of that source. */
function makeCache(size = 100 * piece) {
  const reads: number[] = [];
  const cache = new ByteCache({
    size,
    read: async (offset, length) => {
      reads.push(offset / piece);
      return new Uint8Array(Math.min(length, size - offset)).fill(offset / piece);
    },
  });
  return { cache, reads };
}

/** Waits until the requested bytes are read. */
async function settle(cache: ByteCache): Promise<void> {
  for (let turn = 0; turn < 300; turn++) await Promise.resolve();
  expect(cache.reading.state.value.kind).not.toBe('running');
}

describe('the visible bytes', () => {
  it('are read once, piece by piece, as far as needed', async () => {
    const { cache, reads } = makeCache();
    expect(cache.get(0, 16)).toBeUndefined();
    cache.want(piece - 16, 32);
    await settle(cache);
    cache.want(0, 16);
    await settle(cache);
    expect(reads).toEqual([0, 1]);
    expect(cache.get(piece, 16)).toEqual(new Uint8Array(16).fill(1));
    expect(cache.revision.value).toBe(2);
  });

  it('end where the source ends', async () => {
    const { cache } = makeCache(piece + 5);
    cache.want(piece, 16);
    await settle(cache);
    expect(cache.get(piece, 16)).toHaveLength(5);
  });

  it('do not pile up', async () => {
    const { cache, reads } = makeCache();
    for (let number = 0; number < 80; number++) {
      cache.want(number * piece, 16);
      await settle(cache);
    }
    expect(cache.get(0, 16)).toBeUndefined();
    expect(cache.get(79 * piece, 16)).toBeDefined();
    expect(reads).toHaveLength(80);
  });

  it('say why they cannot be read', async () => {
    const failure = { kind: 'unreadable', message: 'the file was removed' } as const;
    const cache = new ByteCache({ size: 16, read: () => Promise.reject(new ViewerError(failure)) });
    cache.want(0, 16);
    await settle(cache);
    expect(cache.reading.state.value).toEqual({ kind: 'failed', failure });
  });
});
