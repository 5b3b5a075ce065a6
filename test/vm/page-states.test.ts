import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { discardedState, PageStates } from '../../src/vm/page-states.ts';
import { pageCount } from '../../src/vm/ram-block.ts';

describe('page states', () => {
  it('are the states set last, like those of a plain map', () => {
    // Pages around the boundaries of chunks of 4096, and far away.
    const page = fc.oneof(fc.nat(20), fc.integer({ min: 4090, max: 4100 }), fc.nat(20_000), fc.nat(2 ** 40));
    const sets = fc.array(fc.tuple(page, fc.nat(4)), { maxLength: 60 });
    fc.assert(
      fc.property(sets, page, page, (list, from, length) => {
        const states = new PageStates();
        const model = new Map<number, number>();
        for (const [at, state] of list) {
          states.set(at, state);
          model.set(at, state);
          expect(states.get(at)).toBe(state);
        }
        for (const [at, state] of model) expect(states.get(at)).toBe(state);
        for (const [at] of model) expect(states.get(at + 1)).toBe(model.get(at + 1) ?? 0);
        const counts = [0, 0, 0, 0, 0];
        for (const state of model.values()) if (state !== 0) counts[state]!++;
        expect(states.count(5)).toEqual(counts);
        const end = from + Math.min(length, 30_000);
        const next = [...model].filter(([at, state]) => state !== 0 && at >= from && at < end).map(([at]) => at);
        expect(states.nextSet(from, end)).toBe(Math.min(end, ...next));
      }),
    );
  });

  it('of a run are those of its pages, one by one', () => {
    const run = fc.tuple(
      fc.oneof(fc.nat(20), fc.integer({ min: 4080, max: 4100 }), fc.nat(2 ** 40)),
      fc.nat(9000),
      fc.nat(4),
    );
    fc.assert(
      fc.property(fc.array(run, { maxLength: 6 }), (list) => {
        const [states, model] = [new PageStates(), new PageStates()];
        for (const [first, count, state] of list) {
          states.setRun(first, count, state);
          for (let page = first; page < first + count; page++) model.set(page, state);
        }
        for (const [first, count] of list) {
          for (let page = first; page < first + count; page++) {
            if (states.get(page) !== model.get(page)) expect.fail(`page ${page} has ${states.get(page)}`);
          }
          expect([states.get(first + count), first > 0 && states.get(first - 1)]).toEqual([
            model.get(first + count),
            first > 0 && model.get(first - 1),
          ]);
        }
        expect(states.count(5)).toEqual(model.count(5));
      }),
    );
  });

  it('are 0 if nothing was set', () => {
    const states = new PageStates();
    expect([states.get(0), states.get(2 ** 52), states.nextSet(3, 9), states.nextSet(9, 9)]).toEqual([0, 0, 9, 9]);
    expect(states.count(3)).toEqual([0, 0, 0]);
  });

  it('of a guest of 64 TiB are searched without visiting untouched chunks', () => {
    const states = new PageStates();
    states.set(10_000_000, 1);
    expect(states.nextSet(0, 2 ** 34)).toBe(10_000_000);
  });
});

describe('a RAM block', () => {
  it('has as many pages as fit its length', () => {
    expect(pageCount({ index: 0, idstr: 'ram', usedLength: 12288, pageSize: 4096 })).toBe(3);
    expect(pageCount({ index: 0, idstr: 'ram', usedLength: 0, pageSize: 4096 })).toBe(0);
  });
});

describe('page states that were filled', () => {
  it('equal those of a plain array that is overwritten and counted', () => {
    const pages = 5 * 4096 + 77;
    const range = fc.tuple(fc.nat(pages), fc.nat(pages)).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
    fc.assert(
      fc.property(fc.array(fc.nat(pages - 1)), range, fc.array(fc.nat(pages - 1)), (before, [first, end], after) => {
        const states = new PageStates();
        const plain = new Uint8Array(pages);
        for (const page of before) {
          states.set(page, 2);
          plain[page] = 2;
        }
        states.fill(first, end, discardedState);
        plain.fill(discardedState, first, end);
        for (const page of after) {
          states.set(page, 1);
          plain[page] = 1;
        }
        const pieces = [...states.pieces(first, pages)].flatMap((piece) =>
          piece.states === undefined ? new Array(piece.end - piece.first).fill(piece.state) : [...piece.states],
        );
        expect(pieces).toEqual([...plain.subarray(first)]);
        for (const page of [0, first, end - 1, end, ...before, ...after]) {
          if (page >= 0 && page < pages) expect(states.get(page)).toBe(plain[page]);
        }
        const counted = states.count(3);
        for (const state of [1, 2, discardedState]) {
          expect(counted[state] ?? 0).toBe(plain.filter((each) => each === state).length);
        }
        const found = plain.indexOf(discardedState);
        expect(states.find(discardedState)).toBe(found === -1 ? undefined : found);
      }),
    );
  });

  it('take no memory if no page was set, however many there are', () => {
    const states = new PageStates();
    states.fill(1, 2 ** 36, discardedState);
    expect(states.get(2 ** 35)).toBe(discardedState);
    expect(states.count(2)[discardedState]).toBe(2 ** 36 - 1);
    expect(states.nextSet(4096, 2 ** 36)).toBe(2 ** 36);
  });
});
