/** Stands for `fast-check` in the page: a tenth of the random cases, since Node runs them all. */
import * as fc from 'fast-check';

export * from 'fast-check';

const share = 10;

export const assert = ((property: never, options?: { numRuns?: number }) => {
  return fc.assert(property, { ...options, numRuns: Math.ceil((options?.numRuns ?? 100) / share) });
}) as typeof fc.assert;

export default { ...fc, assert };
