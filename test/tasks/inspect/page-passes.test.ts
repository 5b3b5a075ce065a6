import { expect, it } from 'vitest';
import { inspect } from '../../../src/tasks/inspect/inspect.ts';
import { lastPass, PagePasses } from '../../../src/tasks/inspect/page-passes.ts';
import type { FlowItem } from '../../../src/vm/flow.ts';
import {
  EOF,
  EOS,
  filled,
  join,
  KIB4,
  none,
  normalPage,
  part,
  ramEnd,
  ramStart,
  zeroPage,
} from '../../oracle/build.ts';
import { opened } from '../../support/opened.ts';

it('records the pass in which each page was last sent', async () => {
  const stream = join(
    none,
    ramStart,
    part(7, zeroPage(0, 'ram'), normalPage(KIB4, filled(1)), normalPage(2 * KIB4, filled(2)), EOS),
    part(7, normalPage(KIB4, filled(3), 'ram'), EOS),
    part(7, normalPage(KIB4, filled(4), 'ram'), EOS),
    ramEnd,
    EOF,
  );
  const passes = new PagePasses();
  const { inspection } = await inspect(await opened(stream), { watch: (item) => passes.take(item) });
  expect(inspection.ram.passes).toBe(3);
  const [ram] = passes.blocks;
  expect([0, 1, 2, 3].map((page) => ram?.get(page))).toEqual([1, 3, 1, 0]);
});

it('counts no further than a byte allows', () => {
  const passes = new PagePasses();
  const block = { index: 0, idstr: 'ram', usedLength: KIB4, pageSize: KIB4 };
  passes.take({ kind: 'block', block });
  for (let pass = 0; pass < 1000; pass++) passes.take({ kind: 'pass-end', offset: 0 });
  passes.take({ kind: 'pages', block, batch: { count: 1, page: [0] } } as unknown as FlowItem);
  expect(passes.blocks[0]?.get(0)).toBe(lastPass);
});
