/**
 * How much the tests do, and how long they may wait.
 *
 * By default each claim is tested with few cases; with VMFERRY_TESTS=all (`npm run test:all`) with all of them.
 *
 * Tests wait for events, not for a time. A limit only ends a test that hangs, so it is far longer than any machine needs.
 */
export const allCases = process.env.VMFERRY_TESTS === 'all';

/** A list of like cases; by default only every n-th of them. */
export const someOf = <T>(cases: readonly T[], step: number): T[] => cases.filter((_, i) => allCases || i % step === 0);

/** Ends a test that hangs. */
export const testGuardMs = allCases ? 3_600_000 : 600_000;

/** Ends a process, or a wait for one event, that hangs: before the test's own limit, so that the error says what hung. */
export const hangGuardMs = testGuardMs / 2;
