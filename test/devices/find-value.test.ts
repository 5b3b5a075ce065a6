import { describe, expect, it } from 'vitest';
import { isStruct, type StateStruct } from '../../src/devices/device-state.ts';
import { findValue } from '../../src/devices/find-value.ts';
import { hex, join, subsection } from '../oracle/build.ts';
import { decodeBy, field } from './devices.ts';

const struct = (...fields: string[]) => ({
  struct: { vmsd_name: 's', fields: fields.map((each) => JSON.parse(each)) },
});

const fields = [
  field('env.regs', 'uint8', 1, { array_len: 2 }),
  field('env', 'struct', 1, struct(field('regs[0]', 'uint8', 1))),
  field('env.regs[0]', 'struct', 2, { array_len: 1, ...struct(field('q[1]', 'uint16', 2)) }),
  field('p', 'nullptr', 1, { array_len: 2 }),
  field('p', 'struct', 1, struct(field('v', 'uint8', 1))),
  field('i', 'uint8', 1, { index: 0 }),
  field('i', 'uint8', 1, { index: 1 }),
];
const device = decodeBy(
  `"fields": [${fields.join()}], "subsections": [{"vmsd_name": "dev/sub", "version": 1, "fields": [${field('x', 'uint8', 1)}],
    "subsections": [{"vmsd_name": "dev/sub/more", "version": 1, "fields": [${field('y', 'uint8', 1)}]}]}]`,
  join(hex('0102 03 0405 3030 06 07 08'), subsection('dev/sub', [9]), subsection('dev/sub/more', [10])),
);
const state = device.state as StateStruct;

describe('a path', () => {
  it.each([
    ['env.regs', [1, 2]],
    ['env.regs[1]', 2],
    ['p[1]', null],
    ['p[2].v', 6],
    ['i', [7, 8]],
    ['i[1]', 8],
    ['/sub.x', 9],
    ['/dev/sub.x', 9],
    ['/sub/more.y', 10],
    ['/dev/sub/dev/sub/more.y', 10],
    ['env.regs[2]', undefined],
    ['env.regs[-1]', undefined],
    ['env.regs[1].x', undefined],
    ['env.', undefined],
    ['nothing', undefined],
    ['/nothing', undefined],
    ['', undefined],
    ['env.regs[0', undefined],
  ])('%s leads to %j', (path, value) => {
    expect(findValue(state, path)).toEqual(value);
  });

  it('takes the longest name that fits, and a shorter one if that leads nowhere', () => {
    const longest = findValue(state, 'env.regs[0]');
    expect(Array.isArray(longest) && isStruct(longest[0])).toBe(true);
    expect(findValue(state, 'env.regs[0][0].q[1]')).toBe(0x0405);
  });

  it('may lead to a struct or a subsection', () => {
    expect(isStruct(findValue(state, 'env'))).toBe(true);
    expect(findValue(state, '/sub')).toMatchObject({ vmsdName: 'dev/sub' });
  });
});
