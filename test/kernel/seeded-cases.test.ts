/**
 * Every kernel, in both builds, against the oracle on seeded cases: a share of them in `npm test`, a million in
 * `npm run test:all`.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { allCases } from '../limits.ts';
import { loadSmall, variants } from './arena.ts';
import { type Answers, answersOf, Bench } from './seeded-cases.ts';

const total = Number(process.env.VMFERRY_KERNEL_CASES ?? (allCases ? 1_000_000 : 5000));
const shares = 10;

describe(`${total.toLocaleString('en')} seeded cases`, () => {
  let benches: Bench[];
  beforeAll(async () => {
    benches = await Promise.all(variants.map(async (variant) => new Bench(await loadSmall(variant))));
  });

  it.each(Array.from({ length: shares }, (_, share) => share))(
    'agree with the oracle (share %d of 0 to 9)',
    (share) => {
      for (let n = share; n < total; n += shares) {
        const answers = answersOf(n);
        try {
          for (const bench of benches) bench.check(answers);
        } catch (error) {
          expect.fail(`case ${n}: ${(error as Error).message}`);
        }
      }
    },
  );

  it('are of all kinds', () => {
    const kinds = { equal: 0, encoded: 0, overflow: 0, decoded: 0, refused: 0, zero: 0, atTheLimit: 0 };
    const count = (is: boolean, kind: keyof typeof kinds) => {
      if (is) kinds[kind]++;
    };
    for (let n = 0; n < 4000; n++) {
      const { encoded, limit, decoded, zeroes }: Answers = answersOf(n);
      count(encoded?.length === 0, 'equal');
      count(encoded !== undefined && encoded.length > 0, 'encoded');
      count(encoded === undefined, 'overflow');
      count(encoded !== undefined && encoded.length > 0 && limit - encoded.length < 4, 'atTheLimit');
      count(typeof decoded === 'object', 'decoded');
      count(typeof decoded === 'string', 'refused');
      count(zeroes === 1, 'zero');
    }
    expect(Math.min(...Object.values(kinds)), JSON.stringify(kinds)).toBeGreaterThan(40);
  });
});
