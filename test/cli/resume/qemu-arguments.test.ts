/** What `resume --map` understands of a QEMU command line, and what it changes in it. */
import { describe, expect, it } from 'vitest';
import { numbered, withNewGeneration } from '../../../src/cli/resume/clones.ts';
import { requireOwnDisks, writableDisks } from '../../../src/cli/resume/disks.ts';
import { requireFit } from '../../../src/cli/resume/machine-fit.ts';
import {
  backendsIn,
  formatKeys,
  machineIn,
  memoryIn,
  parseKeys,
  parseOptions,
  withoutOptions,
} from '../../../src/cli/resume/qemu-arguments.ts';
import { shellLine } from '../../../src/words/shell.ts';

const optionsOf = (line: string) => parseOptions(line.split(' '));

describe('a command line', () => {
  it('has options with one or two dashes, flags, and images', () => {
    expect(optionsOf('-S --machine q35 disk.img -m 1G -nographic').map(({ name, value }) => [name, value])).toEqual([
      ['S', undefined],
      ['machine', 'q35'],
      ['hda', 'disk.img'],
      ['m', '1G'],
      ['nographic', undefined],
    ]);
  });

  it('has keys, with doubled commas and in JSON', () => {
    expect([...parseKeys('q35,accel=kvm,nosmm,usb', 'type')]).toEqual([
      ...[
        ['type', 'q35'],
        ['accel', 'kvm'],
        ['smm', 'off'],
        ['usb', 'on'],
      ],
    ]);
    expect([...parseKeys('file=a,,b,if=virtio')]).toEqual([
      ['file', 'a,b'],
      ['if', 'virtio'],
    ]);
    expect([...parseKeys('{"driver":"raw","file":{"driver":"file","filename":"x"},"read-only":true}')]).toEqual([
      ...[
        ['driver', 'raw'],
        ['file.driver', 'file'],
        ['file.filename', 'x'],
        ['read-only', 'on'],
      ],
    ]);
    expect(formatKeys(parseKeys('file=a,,b,if=virtio'))).toBe('file=a,,b,if=virtio');
  });

  it.each([
    ['-m 256', 256 << 20],
    ['-m size=1.5G,slots=2', 1.5 * 2 ** 30],
    ['-m 1G -m 512M', 512 << 20],
    ['-m 2097152K', 2 ** 31],
    ['-m 1x', undefined],
    ['-S', undefined],
  ])('%s', (line, bytes) => expect(memoryIn(optionsOf(line))).toBe(bytes));

  it('has a machine and memory backends', () => {
    const options = optionsOf(
      '-M pc -machine memory-backend=m -object memory-backend-memfd,id=m,share=on -object rng-random,id=r',
    );
    expect(machineIn(options)).toBe('pc');
    expect(backendsIn(options).map(({ id, isShared }) => [id, isShared])).toEqual([['m', true]]);
    expect(
      withoutOptions(['-S', '-object', 'x', '-m', '1'], [parseOptions(['-S', '-object', 'x'])[1] as never]),
    ).toEqual([...['-S', '-m', '1']]);
  });

  it('is quoted for a shell only where it must be', () => {
    expect(shellLine(['a', '/b,c=d', "it's", '', '$x'])).toBe(`a /b,c=d 'it'\\''s' '' '$x'`);
  });
});

describe('arguments that do not fit the guest', () => {
  const block = { index: 0, idstr: 'pc.ram', usedLength: 256 << 20, pageSize: 4096 };
  const resume = {
    ...{ machine: 'pc-q35-10.0', blocks: [block] },
    mapped: [{ block, id: 'pc.ram', offset: 1 << 20, length: block.usedLength, isDefault: true }],
  };
  const fits = (line: string) => () => requireFit(optionsOf(line), resume);

  it.each(['-M q35 -m 256', '-m 256M', '-machine pc-q35-10.0,accel=tcg -m 0.25G', '-m 256 -S'])('takes %s', (line) => {
    expect(fits(line)).not.toThrow();
  });

  it.each([
    ['-M q35', /has 256 MiB of RAM: expected -m 256M, got QEMU's default of 128 MiB/],
    ['-M q35 -m 1G', /expected -m 256M, got 1 GiB/],
    ['-M pc -m 256', /machine type pc-q35-10.0: expected -machine pc-q35-10.0, got pc/],
    ['-M pc-q35-9.2 -m 256', /got pc-q35-9.2/],
    ['-m 256 -incoming defer', /expected ARGS without -incoming: resume adds its own/],
    ['-m 256 -mem-prealloc', /without -mem-prealloc: it would read all of FILE/],
    [
      '-m 256 -object memory-backend-ram,id=other,size=256M',
      /memory backend other has no RAM block in FILE, which has pc.ram/,
    ],
  ])('refuses %s', (line, message) => {
    expect(fits(line)).toThrow(message);
  });
});

describe('clones', () => {
  it('have their numbers, and new ids of their generation', () => {
    const clones = numbered(['-device', 'vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87', '-name', 'vm{n}'], 2);
    expect(clones.map((args) => args[3])).toEqual(['vm1', 'vm2']);
    const [one, other] = clones.map(withNewGeneration);
    expect([one?.hasDevice, one?.args[1]]).toEqual([
      true,
      expect.stringMatching(/^driver=vmgenid,guid=[0-9a-f-]{36}$/),
    ]);
    expect(one?.args[1]).not.toBe(other?.args[1]);
    expect(one?.args[1]).not.toContain('324e6eaf');
    expect(withNewGeneration(['-device', 'e1000']).hasDevice).toBe(false);
  });

  it.each([
    ['-drive file=a.img,format=raw', 'a.img'],
    ['-hda a.img', 'a.img'],
    ['a.img', 'a.img'],
    ['-pflash vars.fd', 'vars.fd'],
    ['-blockdev driver=qcow2,node-name=d,file.driver=file,file.filename=a.qcow2', 'a.qcow2'],
    ['-blockdev driver=file,node-name=f,filename=a.img', 'a.img'],
    ['-blockdev {"driver":"raw","node-name":"d","file":{"driver":"host_device","filename":"/dev/sdx"}}', '/dev/sdx'],
    ['-blockdev driver=nbd,node-name=n,server.type=unix,server.path=/x', 'server.path=/x'],
    ['-drive file=nbd://h/e', 'nbd://h/e'],
  ])('may not share %s', (line, path) => {
    expect(() => requireOwnDisks([optionsOf(line), optionsOf(line)])).toThrow(
      new RegExp(`clones 1 and 2 would both write .*${path}.*--overlay`),
    );
  });

  it.each([
    '-drive file=a.img,readonly=on',
    '-drive file=a.iso,media=cdrom',
    '-cdrom a.iso',
    '-drive file=a.img -snapshot',
    '-drive file=null-co://,format=raw',
    '-blockdev null-co,node-name=n,size=1G',
    '-blockdev driver=raw,node-name=d,read-only=on,file.driver=file,file.filename=a.img',
    '-blockdev driver=file,node-name=f,filename=a.img -blockdev driver=raw,node-name=d,file=f,read-only=on',
  ])('may share %s', (line) => {
    expect(() => requireOwnDisks([optionsOf(line), optionsOf(line)])).not.toThrow();
  });

  it.each([
    ['-drive file=a.img,if=virtio', 'file=o,if=virtio,format=qcow2'],
    ['-drive file=a.img,format=raw,if=none,id=d', 'file=o,format=qcow2,if=none,id=d'],
    ['-hda a.img', 'o'],
    [
      '-blockdev driver=raw,node-name=d,file.driver=file,file.filename=a.img',
      'driver=qcow2,node-name=d,file.driver=file,file.filename=o',
    ],
    [
      '-blockdev driver=file,node-name=f,filename=a.img,aio=native',
      'driver=qcow2,file.driver=file,node-name=f,file.filename=o,file.aio=native',
    ],
    [
      '-blockdev driver=file,node-name=f,filename=a -blockdev driver=qcow2,node-name=d,file=f',
      'driver=file,node-name=f,filename=o',
    ],
  ])('have an overlay in place of %s', (line, value) => {
    const [disk] = writableDisks(optionsOf(line));
    expect(disk?.replaced?.('o')).toBe(value);
  });
});
