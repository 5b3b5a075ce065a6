/** Runs in the page: the seeded cases of test/kernel on both builds. */
import { loadSmall, variants } from '../kernel/arena.ts';
import { answersOf, Bench } from '../kernel/seeded-cases.ts';

/** Throws for the first case in which a kernel and the oracle disagree. */
export async function checkCases(cases: number): Promise<{ cases: number; variants: string[] }> {
  const kernels = await Promise.all(variants.map((variant) => loadSmall(variant)));
  const benches = kernels.map((kernel) => new Bench(kernel));
  for (let n = 0; n < cases; n++) {
    const answers = answersOf(n);
    for (const bench of benches) bench.check(answers);
  }
  return { cases, variants: kernels.map(({ variant }) => variant) };
}
