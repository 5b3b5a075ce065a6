import { describe, expect, it } from 'vitest';
import { parseLocation, splitInside, splitUrl } from '../../src/read/location.ts';

describe('a name after a path', () => {
  const files = ['disk.qcow2', 'a#b', 'a', 'x#1.qcow2'];
  const split = (path: string) => splitInside(path, (each) => files.includes(each));

  it.each([
    ['disk.qcow2', 'disk.qcow2', undefined],
    ['disk.qcow2#one', 'disk.qcow2', 'one'],
    ['disk.qcow2#the second #2', 'disk.qcow2', 'the second #2'],
    ['disk.qcow2#', 'disk.qcow2', ''],
    // A name that is an existing file is that file, and the longest one wins.
    ['a#b', 'a#b', undefined],
    ['a#b#c', 'a#b', 'c'],
    ['a#c', 'a', 'c'],
    ['x#1.qcow2#s', 'x#1.qcow2', 's'],
    ['disk.qcow2#s,offset=5', 'disk.qcow2', 's,offset=5'],
    ['nowhere#s', 'nowhere#s', undefined],
    ['#s', '#s', undefined],
  ])('%s is %s and %j', (path, file, inside) => {
    expect(split(path)).toEqual({ path: file, inside });
  });
});

describe('a URL', () => {
  it('may have a name or an offset after it', () => {
    const nothing = { inside: undefined, offset: undefined };
    expect(splitUrl('http://h/a?b=c')).toEqual({ ...nothing, url: 'http://h/a?b=c' });
    expect(splitUrl('https://h/disk%201.qcow2#the%20first')).toEqual({
      ...nothing,
      url: 'https://h/disk%201.qcow2',
      inside: 'the first',
    });
    expect(splitUrl('http://h/a,offset=4K')).toEqual({ ...nothing, url: 'http://h/a', offset: 4096 });
    expect(splitUrl('http://h/a#100%')).toEqual({ ...nothing, url: 'http://h/a', inside: '100%' });
    expect(() => splitUrl('http://')).toThrow(TypeError);
  });
});

describe('an offset after a path', () => {
  it.each([
    ['a,offset=0x1000', 'a', 4096],
    ['a,offset=1MiB', 'a', 1 << 20],
    ['a,b,offset=4K', 'a,b', 4096],
    ['a,offset=', 'a,offset=', undefined],
    ['a,offset=x', 'a,offset=x', undefined],
  ])('%s is %s and %j', (location, path, offset) => expect(parseLocation(location)).toEqual({ path, offset }));

  it('is refused if it is malformed', () => {
    expect(() => parseLocation('a,offset=1Mb')).toThrow(/for bytes write 1MB .* or 1MiB/);
    expect(() => parseLocation('a,offset=4Q')).toThrow(/such as 4096/);
    expect(() => parseLocation('a,offset=1x')).toThrow(/such as 4096/);
  });
});
