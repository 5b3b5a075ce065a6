import { describe, expect, it } from 'vitest';
import { helpFor, plainText } from '../../../src/demo/page/finding-help.ts';
import { findingCodes } from '../../../src/vm/migration-error.ts';

describe('the help for findings', () => {
  it.each(Object.keys(findingCodes))('has a meaning, a cause and a remedy for %s', (code) => {
    const { meaning, cause, remedy } = helpFor(code) ?? {};
    for (const text of [meaning, cause, remedy]) expect(text).toMatch(/\w/);
    expect(remedy).not.toBe('as above');
  });

  it('shows no Markdown', () => {
    expect(plainText('see [limits](formats/stream.md#limits), `inspect`')).toBe('see limits, inspect');
  });
});
