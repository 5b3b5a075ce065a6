/**
 * The amount of testing, and limits for waiting.
 *
 * By default each claim is tested with a few cases. VMFERRY_TESTS=more (`npm run test:page`) tests more of them, with each
 * command in its own process. VMFERRY_TESTS=all (`npm run test:all`) tests all of them.
 *
 * Tests wait for events, never for a time. A limit only ends a hanging test, so it is far longer than any machine
 * needs.
 */
export const allCases = process.env.VMFERRY_TESTS === 'all';
export const moreCases = allCases || process.env.VMFERRY_TESTS === 'more';

/** Selects from a list of similar cases: by default every n-th, and every `more`-th if more cases are tested. */
export function someOf<T>(cases: readonly T[], few: number, more = few): T[] {
  const step = allCases ? 1 : moreCases ? more : few;
  return cases.filter((_, i) => i % step === 0);
}

/** Ends a hanging test. */
export const testGuardMs = allCases ? 3_600_000 : 600_000;

/** Ends a hanging process or wait, before the test's own limit, so that the error names it. */
export const hangGuardMs = testGuardMs / 2;
