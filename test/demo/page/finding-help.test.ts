import { describe, expect, it } from 'vitest';
import { helpFor, plainText } from '../../../src/demo/page/finding-help.ts';
import { findingCodes } from '../../../src/vm/migration-error.ts';
import { expectNoCommandLine } from './page-words.ts';

describe('the help for findings', () => {
  it.each(Object.keys(findingCodes))('has a meaning and a cause for %s', (code) => {
    const { meaning, cause } = helpFor(code) ?? {};
    for (const text of [meaning, cause]) expect(text).toMatch(/\w/);
  });

  it.each(Object.keys(findingCodes))('names no command, option or argument of the command line for %s', (code) => {
    const { meaning = '', cause = '' } = helpFor(code) ?? {};
    for (const text of [meaning, cause]) expectNoCommandLine(text);
  });

  it('shows no Markdown', () => {
    expect(plainText('see [limits](formats/stream.md#limits), `inspect`')).toBe('see limits, inspect');
  });
});
