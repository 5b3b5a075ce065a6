/** Replaces `vitest` in the page, with vitest's own runner and matchers. */
import {
  ASYMMETRIC_MATCHERS_OBJECT,
  chai,
  getState,
  JestAsymmetricMatchers,
  JestChaiExpect,
  JestExtend,
  setState,
} from '@vitest/expect';
import { getCurrentTest } from '@vitest/runner';

export { afterAll, beforeAll, describe, it } from '@vitest/runner';

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin);

type Expect = (value: unknown, message?: string) => unknown;

/** As in vitest: an assertion knows its test, so an assertion that was not awaited is still awaited. */
export const expect: Expect = Object.assign(
  (value: unknown, message?: string) => {
    const assertion = chai.expect(value, message) as unknown as { withTest(test: unknown): unknown };
    const test = getCurrentTest();
    return test === undefined ? assertion : assertion.withTest(test);
  },
  chai.expect,
  (globalThis as unknown as Record<symbol, object>)[ASYMMETRIC_MATCHERS_OBJECT],
);
setState({ ...getState(expect as never), assertionCalls: 0 }, expect as never);
