import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Kernel } from '../../src/kernel/index.ts';
import { Guarded, loadSmall, variants } from './arena.ts';
import { find } from './oracle.ts';

const bytes = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));

describe.each(variants)('finding bytes (%s)', (variant) => {
  let kernel: Kernel;
  let text: Guarded;
  let pattern: Guarded;

  beforeAll(async () => {
    kernel = await loadSmall(variant);
    text = new Guarded(kernel, 70_000);
    pattern = new Guarded(kernel, 10_000);
  });

  /** Searches between guards. By default the anchors are the first and the last byte. */
  function run(
    content: Uint8Array,
    values: Uint8Array,
    masks = new Uint8Array(values.length).fill(0xff),
    { first = 0, second = values.length - 1, misalignment = 0 } = {},
  ): number {
    text.place(content, misalignment);
    const table = new Uint8Array(2 * values.length);
    table.set(values);
    table.set(masks, values.length);
    pattern.place(table, misalignment);
    const place = kernel.find(text.address, content.length, pattern.address, values.length, first, second);
    expect(text.isUntouchedAround && pattern.isUntouchedAround).toBe(true);
    return place;
  }

  it('finds a pattern at every position of a text, whatever follows the text', () => {
    const needle = bytes('needle');
    for (let length = needle.length; length < 200; length++) {
      for (let at = 0; at + needle.length <= length; at += length < 90 ? 1 : 7) {
        const content = new Uint8Array(length).fill(0x6e);
        content.set(needle, at);
        if (run(content, needle) !== at) expect.fail(`${length} bytes, at ${at}`);
      }
    }
  });

  it('does not find a pattern that ends after the text', () => {
    // The guard around the text is 0xa5, which would complete the pattern.
    for (let length = 1; length < 150; length++) {
      const content = new Uint8Array(length).fill(1);
      content[length - 1] = 0xa5;
      expect(run(content, Uint8Array.of(0xa5, 0xa5))).toBe(-1);
      expect(run(content, Uint8Array.of(0xa5))).toBe(length - 1);
    }
    expect(run(new Uint8Array(), Uint8Array.of(1))).toBe(-1);
    expect(run(Uint8Array.of(1, 2), Uint8Array.of(1, 2, 3))).toBe(-1);
  });

  it('finds the first of several matches, and none if only the anchors match', () => {
    expect(run(bytes(`${'x'.repeat(77)}a-b a+b a+b`), bytes('a+b'))).toBe(81);
    expect(run(bytes('a-b '.repeat(1000)), bytes('a+b'))).toBe(-1);
    expect(run(bytes('\x00\x01'.repeat(500)), bytes('\x00\x00'))).toBe(-1);
  });

  it('takes masks as wildcards', () => {
    const values = Uint8Array.of(0xde, 0, 0x40, 0xef);
    const masks = Uint8Array.of(0xff, 0, 0xf0, 0xff);
    expect(run(Uint8Array.of(0xde, 0xde, 0x12, 0x47, 0xef), values, masks)).toBe(1);
    expect(run(Uint8Array.of(0xde, 0xde, 0x12, 0x57, 0xef), values, masks)).toBe(-1);
  });

  it('matches everywhere if all bytes are wildcards', () => {
    expect(run(bytes('abc'), Uint8Array.of(0, 0), Uint8Array.of(0, 0))).toBe(0);
  });

  it('agrees with the oracle, for every choice of anchors', () => {
    const few = fc.constantFrom(0, 1, 2, 0x41, 0x61);
    const recipe = fc.record({
      content: fc.uint8Array({ maxLength: 300 }).chain((noise) =>
        fc.oneof(
          fc.constant(noise),
          fc.array(few, { maxLength: 300 }).map((list) => Uint8Array.from(list)),
        ),
      ),
      pattern: fc.array(fc.record({ value: few, mask: fc.constantFrom(0xff, 0xff, 0xff, 0xdf, 0x0f, 0) }), {
        minLength: 1,
        maxLength: 20,
      }),
      cut: fc.option(fc.record({ at: fc.nat(280), size: fc.integer({ min: 1, max: 20 }) })),
      anchors: fc.tuple(fc.nat(), fc.nat()),
      misalignment: fc.nat(63),
    });
    fc.assert(
      fc.property(recipe, ({ content, pattern: wanted, cut, anchors, misalignment }) => {
        const masks = Uint8Array.from(wanted, ({ mask }) => mask);
        let values = Uint8Array.from(wanted, ({ value }) => value);
        // Often the pattern is a piece of the text.
        if (cut !== null && cut.at < content.length) values = values.map((value, k) => content[cut.at + k] ?? value);
        values = values.map((value, k) => value & masks[k]!);
        const [first, second] = anchors.map((anchor) => anchor % values.length) as [number, number];
        expect(run(content, values, masks, { first, second, misalignment })).toBe(find(content, values, masks));
      }),
      { seed: 1, numRuns: 3000 },
    );
  });

  it('refuses ranges outside the arena', () => {
    const at = pattern.place(new Uint8Array(8));
    expect(() => kernel.find(kernel.size - 10, 11, at, 4, 0, 3)).toThrow(RangeError);
    expect(() => kernel.find(text.address, 10, kernel.size - 7, 4, 0, 3)).toThrow(RangeError);
    expect(() => kernel.find(text.address, 10, at, 0, 0, 0)).toThrow(/size: expected an integer in 1\.\./);
    expect(() => kernel.find(text.address, 10, at, 4, 4, 0)).toThrow(/first: expected an integer in 0\.\.3, got 4/);
    expect(() => kernel.find(text.address, 10, at, 4, 0, -1)).toThrow(/second/);
  });

  it('reads a text to the last byte of the arena and no further', () => {
    const size = 200;
    const at = pattern.place(Uint8Array.of(7, 0xff));
    kernel.bytes.fill(0, kernel.size - size);
    expect(kernel.find(kernel.size - size, size, at, 1, 0, 0)).toBe(-1);
    kernel.bytes[kernel.size - 1] = 7;
    expect(kernel.find(kernel.size - size, size, at, 1, 0, 0)).toBe(size - 1);
    kernel.bytes[kernel.size - 1] = 0;
  });
});
