/** An order of pages as text, and the order in which a page server pushes. */
import { describe, expect, it } from 'vitest';
import { formatOrder, pagesInOrder, parseOrder } from '../../src/migrate/page-order.ts';
import { type PageRange, ServedOrder } from '../../src/migrate/push-order.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';

const ram: RamBlock = { index: 0, idstr: 'pc.ram', usedLength: 400 * 4096, pageSize: 4096 };
const vga: RamBlock = { index: 1, idstr: 'vga with spaces', usedLength: 16 * 4096, pageSize: 4096 };
const head = '# vmferry page order 1';

describe('an order as text', () => {
  const ranges: PageRange[] = [
    { block: ram, first: 7, end: 8 },
    { block: ram, first: 8, end: 10 },
    { block: vga, first: 0, end: 1 },
    { block: ram, first: 1, end: 2 },
  ];

  it('has a line for pages that follow each other', () => {
    expect(formatOrder(ranges)).toBe(
      [head, '0x7000 0x3000 pc.ram', '0x0 0x1000 vga with spaces', '0x1000 0x1000 pc.ram', ''].join('\n'),
    );
  });

  it('is read again, with comments and empty lines', () => {
    const text = `${formatOrder(ranges)}\n# a comment\n`;
    expect(pagesInOrder(parseOrder(text), [ram, vga])).toEqual([
      { block: ram, first: 7, end: 10 },
      { block: vga, first: 0, end: 1 },
      { block: ram, first: 1, end: 2 },
    ]);
  });

  it('may name blocks and pages that a VM does not have', () => {
    const text = `${head}\n0x0 0x1000 gone\n0x18e000 0x5000 pc.ram\n0x200000 0x1000 pc.ram\n`;
    expect(pagesInOrder(parseOrder(text), [ram])).toEqual([{ block: ram, first: 398, end: 400 }]);
  });

  it('is refused with the line that is wrong', () => {
    expect(() => parseOrder('something else')).toThrow(`expected "${head}" in line 1 of the order`);
    expect(() => parseOrder(`${head}\n0x0 0x1000 pc.ram\n0x0 pc.ram\n`)).toThrow(
      'expected begin, length and block in line 3 of the order, got "0x0 pc.ram"',
    );
    expect(() => parseOrder(`${head}\n0xfffffffffffffff 0x1000 pc.ram\n`)).toThrow('in line 2 of the order');
  });
});

/** Blocks in which every page but those of `zeros` is to be sent. */
function makeOrder(recorded: PageRange[] = [], zeros: ReadonlySet<number> = new Set(), pushesZeros = false) {
  const sent = new Set<string>();
  const name = ({ idstr }: RamBlock, page: number) => `${idstr} ${page}`;
  const isLeft = (block: RamBlock, page: number) => !sent.has(name(block, page)) && !zeros.has(page);
  const nextData = async (block: RamBlock, from: number, to: number) => {
    let first = from;
    while (first < to && !isLeft(block, first)) first++;
    if (first === to) return undefined;
    let end = first;
    while (end < to && isLeft(block, end)) end++;
    return { first, end };
  };
  const nextDirty = (block: RamBlock, from: number, to: number) => {
    let first = from;
    while (first < to && sent.has(name(block, first))) first++;
    return first === to ? undefined : { first, end: first + 1 };
  };
  const order = new ServedOrder({ nextData, nextDirty }, [ram, vga], { recorded, pushesZeros });
  const take = async (most = 64) => {
    const range = await order.next(() => most);
    if (range === undefined) return undefined;
    for (let page = range.first; page < range.end; page++) sent.add(name(range.block, page));
    return `${range.block.idstr} ${range.first}-${range.end}`;
  };
  const ask = (block: RamBlock, page: number) => {
    sent.add(name(block, page));
    order.asked({ block, first: page, end: page + 1 });
  };
  return { take, ask };
}

describe('the order of a page server', () => {
  it('is that of the blocks if nobody asks', async () => {
    const { take } = makeOrder();
    const taken: (string | undefined)[] = [];
    for (let i = 0; i < 9; i++) taken.push(await take());
    expect(taken.slice(0, 2)).toEqual(['pc.ram 0-64', 'pc.ram 64-128']);
    expect(taken.slice(6)).toEqual(['pc.ram 384-400', 'vga with spaces 0-16', undefined]);
  });

  it('is around what was asked for, the latest first, behind it before what precedes it', async () => {
    const { take, ask } = makeOrder();
    await take();
    ask(ram, 300);
    ask(vga, 4);
    expect([await take(), await take(), await take(), await take(), await take()]).toEqual([
      ...['vga with spaces 5-16', 'vga with spaces 0-4', 'pc.ram 301-365', 'pc.ram 284-300', 'pc.ram 64-128'],
    ]);
  });

  it('has what was recorded first, without what is there already', async () => {
    const recorded = [
      { block: ram, first: 200, end: 202 },
      { block: ram, first: 100, end: 101 },
    ];
    const { take, ask } = makeOrder(recorded);
    ask(ram, 200);
    expect([await take(), await take(), await take()]).toEqual(['pc.ram 201-202', 'pc.ram 100-101', 'pc.ram 202-265']);
  });

  it('has zero pages last, if they are wanted', async () => {
    const { take } = makeOrder([], new Set([3, 9]), true);
    const taken: (string | undefined)[] = [];
    for (let range = await take(400); range !== undefined; range = await take(400)) taken.push(range);
    expect(taken.slice(0, 3)).toEqual(['pc.ram 0-3', 'pc.ram 4-9', 'pc.ram 10-400']);
    expect(taken.slice(-4)).toEqual([...['pc.ram 3-4', 'pc.ram 9-10', 'vga with spaces 3-4', 'vga with spaces 9-10']]);
  });

  it('remembers the latest of many requests, and still sends every page once', async () => {
    const { take, ask } = makeOrder([], new Set([17]));
    for (let page = 0; page < 400; page++) if (page % 2 === 0) ask(ram, page);
    let pages = 0;
    for (let range = await take(8); range !== undefined; range = await take(8)) {
      const [, first, end] = /(\d+)-(\d+)$/.exec(range) as unknown as [string, string, string];
      pages += Number(end) - Number(first);
    }
    // Page 17 is zero.
    expect(pages).toBe(200 - 1 + 16);
  });
});
