import { describe, expect, it } from 'vitest';
import { stepOfKey } from '../../../src/demo/page/keys.ts';

describe('the movement keys', () => {
  it.each([
    ['ArrowUp', -4],
    ['ArrowDown', 4],
    ['ArrowLeft', -1],
    ['ArrowRight', 1],
    ['PageUp', -40],
    ['PageDown', 40],
    ['Home', Number.NEGATIVE_INFINITY],
    ['End', Number.POSITIVE_INFINITY],
    ['a', undefined],
  ])('%s moves by %s', (key, step) => {
    expect(stepOfKey(key, { column: 1, line: 4, page: 40 })).toBe(step);
  });

  it('leaves left and right alone where there is one column', () => {
    expect(stepOfKey('ArrowLeft', { line: 1, page: 10 })).toBeUndefined();
    expect(stepOfKey('ArrowRight', { line: 1, page: 10 })).toBeUndefined();
  });
});
