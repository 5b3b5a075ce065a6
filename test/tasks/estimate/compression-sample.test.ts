import { describe, expect, it } from 'vitest';
import type { PageCodecs } from '../../../src/io/page-codec.ts';
import { PortableCodecs } from '../../../src/io/portable-codecs.ts';
import { breakEven, gainOf, measureCompression } from '../../../src/tasks/estimate/compression-sample.ts';
import type { PageGroup } from '../../../src/tasks/estimate/page-sample.ts';
import { seeded } from '../../kernel/arena.ts';

/** Codecs that turn four bytes into one, and take 2 ms per group. */
function clockwork(): { codecs: PageCodecs; clock: () => number; encoded: number[] } {
  let now = 0;
  const encoded: number[] = [];
  const codecs = {
    openEncoder: async () => ({
      encode(input: Uint8Array) {
        now += 2;
        encoded.push(input.length);
        return input.length / 4;
      },
      close() {},
    }),
  } as unknown as PageCodecs;
  return { codecs, clock: () => now, encoded };
}

const group = (bytes: Uint8Array): PageGroup => ({ bytes, pageSize: 4096 });

describe('compression of a sample', () => {
  it('has the ratio and the speed of codec and clock', async () => {
    const { codecs, clock } = clockwork();
    const groups = [1, 2, 3, 4].map(() => group(new Uint8Array(512 << 10)));
    const [figure] = await measureCompression(groups, [{ format: 'zstd', level: 3 }], { codecs, clock, population: 9 });
    expect(figure).toEqual({ format: 'zstd', level: 3, ratio: 4, ratioError: 0, bytesPerSecond: (512 << 10) * 500 });
  });

  it('states the error of a ratio, unless the sample is everything, or too small', async () => {
    const codecs = new PortableCodecs();
    const groups = [group(seeded(1).bytes(4096 * 16)), group(new Uint8Array(4096 * 16).fill(3))];
    const errorOf = async (some: PageGroup[], population: number) => {
      const wish = [{ format: 'zlib' as const, level: 1 }];
      let now = 0;
      const clock = () => (now += 100);
      return (await measureCompression(some, wish, { codecs, clock, population }))[0]!.ratioError;
    };
    expect(await errorOf(groups, 2)).toBe(0);
    expect(await errorOf(groups, 1000)).toBeGreaterThan(1);
    expect(await errorOf(groups.slice(0, 1), 1000)).toBeUndefined();
  });

  it('compresses a small sample until the time is measurable', async () => {
    const { codecs, clock, encoded } = clockwork();
    await measureCompression([group(new Uint8Array(64 << 10))], [{ format: 'zlib', level: 1 }], {
      ...{ codecs, clock, population: 1 },
    });
    // 2 ms each.
    expect(encoded).toHaveLength(1 + 25);
  });

  it('never compresses a sample forever, whatever the clock says', async () => {
    const { codecs, encoded } = clockwork();
    await measureCompression([group(new Uint8Array(4096))], [{ format: 'zlib', level: 1 }], {
      ...{ codecs, clock: () => 0, population: 1 },
    });
    expect(encoded).toHaveLength(1 + 64);
  });

  it('pays off below the speed of the threads, by the ratio at most', () => {
    const figure = { format: 'zlib' as const, level: 1, ratio: 3, ratioError: 0, bytesPerSecond: 100 };
    expect(breakEven(figure, 4)).toBe(400);
    expect([100, 160, 400, 800].map((bandwidth) => gainOf(figure, 4, bandwidth))).toEqual([3, 2.5, 1, 0.5]);
    expect(breakEven({ ...figure, ratio: 0.99 }, 4)).toBe(0);
  });
});
