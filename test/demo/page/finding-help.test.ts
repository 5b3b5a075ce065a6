import { describe, expect, it } from 'vitest';
import { helpFor, plainText } from '../../../src/demo/page/finding-help.ts';
import { findingCodes } from '../../../src/vm/migration-error.ts';

describe('the help for findings', () => {
  it.each(Object.keys(findingCodes))('has a meaning, a cause and a remedy for %s', (code) => {
    const { meaning, cause, remedy } = helpFor(code) ?? {};
    for (const text of [meaning, cause, remedy]) expect(text).toMatch(/\w/);
    expect(remedy).not.toContain('as above');
  });

  it.each(Object.keys(findingCodes))('names no command, option or argument of the command line for %s', (code) => {
    const commands = 'inspect|verify|check|extract|read|search|convert|diff|merge|changes|estimate|send|devices';
    const { meaning, cause, remedy } = helpFor(code) ?? {};
    for (const text of [meaning, cause, remedy]) {
      expect(text).not.toMatch(
        new RegExp(`(^|[\\s(\`])--[a-z]|,offset=|\\b(FILE|PATH|OUT|BASE)\\b|\`(${commands})(?![\\w-])`),
      );
    }
  });

  it('shows no Markdown', () => {
    expect(plainText('see [limits](formats/stream.md#limits), `inspect`')).toBe('see limits, inspect');
  });
});
