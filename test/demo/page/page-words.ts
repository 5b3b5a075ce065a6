/** The words that texts of the page must not contain. */
import { expect } from 'vitest';

const commands = 'inspect|verify|check|extract|read|search|convert|diff|merge|changes|estimate|send|devices';

/** The page has no commands, options and arguments, so its texts must not name them. */
export function expectNoCommandLine(text: string): void {
  expect(text).not.toMatch(/(^|[\s(`"'])--[a-z]/);
  expect(text).not.toMatch(/,offset=|#SNAPSHOT|#MEMBER/);
  expect(text).not.toMatch(/\b(FILE|PATH|OUT|BASE|CHANGES)\b/);
  expect(text).not.toMatch(new RegExp(`\`(${commands})(?![\\w-])`));
}
