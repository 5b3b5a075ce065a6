import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeDevice, isStruct } from '../../src/devices/device-state.ts';
import { findValue } from '../../src/devices/find-value.ts';
import { readVirtioDevice, virtioStatusNames } from '../../src/devices/virtio-device.ts';
import { join, subsection, u16, u32, u64 } from '../oracle/build.ts';
import { sectionOf } from './devices.ts';
import { type VirtioShape, virtioBody } from './virtio.ts';

function decode(vmsdName: string, data: Uint8Array) {
  const fields = [
    { name: 'virtio', type: 'virtio', size: data.length, arrayLength: undefined, index: undefined, nested: [] },
  ];
  const description = { name: 'dev', instanceId: 0, vmsdName, version: 1, fields, subsections: [] };
  const device = decodeDevice(sectionOf(data), description);
  const { state } = device;
  if (state === undefined) throw new Error(device.problem);
  const find = (path: string) => findValue(state, path === '' ? 'virtio' : `virtio${path}`);
  return { undecoded: device.undecodedBytes, virtio: readVirtioDevice(state), find };
}

const queue = { size: 64, desc: 0x1_0020_0000n, avail: 0x210000n, used: 0x220000n, last: 7, vector: 1 };
const unused = { size: 32, desc: 0n, avail: 0n, used: 0n, last: 0, vector: 0xffff };

describe('the body of a virtio device', () => {
  it.each<[string, VirtioShape]>([
    ['PCI', {}],
    ['PCI without MSI-X', { vectors: 0 }],
    ['PCI with many vectors', { vectors: 65 }],
    ['PCI Express', { pci: 4096 }],
    ['MMIO', { pci: 0 }],
  ])('on %s shows what its driver set up', (_, shape) => {
    const { undecoded, virtio } = decode('virtio-rng', virtioBody({ ...shape, queues: [queue, unused] }));
    expect(undecoded).toBe(0);
    const hasVector = shape.pci !== 0 && shape.vectors !== 0;
    expect(virtio).toEqual({
      ...{ kind: 'entropy', status: 15, features: 1n << 32n },
      queues: [
        {
          size: 64,
          desc: queue.desc,
          avail: 0x210000n,
          used: 0x220000n,
          lastAvailIndex: 7,
          vector: hasVector ? 1 : undefined,
        },
        { size: 32, desc: 0n, avail: 0n, used: 0n, lastAvailIndex: 0, vector: undefined },
      ],
    });
  });

  it('of the legacy kind has no addresses except the first', () => {
    const body = virtioBody({ queues: [queue], features: 5n, tail: new Uint8Array() });
    expect(decode('virtio-scsi', body).virtio).toMatchObject({
      features: 5n,
      queues: [{ desc: queue.desc, avail: undefined, used: undefined }],
    });
  });

  it('contains the rarer subsections', () => {
    const tail = join(
      subsection('virtio/device_endian', [2]),
      subsection('virtio/broken', [1]),
      subsection('virtio/disabled', [0]),
      subsection('virtio/packed_virtqueues', [0, 5, 1, 0, 6, 0], u32(9), new Uint8Array(1023 * 10)),
    );
    const { undecoded, find } = decode('virtio-rng', virtioBody({ tail }));
    expect(undecoded).toBe(0);
    expect(find('/device_endian.device_endian')).toBe(2);
    expect(find('/broken.broken')).toBe(true);
    expect(find('/disabled.disabled')).toBe(false);
    expect(find('/packed_virtqueues.vq[0].last_avail_idx')).toBe(5);
    expect(find('/packed_virtqueues.vq[0].used_wrap_counter')).toBe(false);
    expect(find('/packed_virtqueues.vq[0].inuse')).toBe(9);
  });

  const mac = [0x52, 0x54, 0, 1, 2, 3];
  const net = (addresses: number, ...more: number[]) =>
    join(
      ...[mac, u32(0), u32(1), u16(1), [1, 0], u32(addresses), new Uint8Array(6 * addresses)],
      ...[new Uint8Array(512), u32(1), new Uint8Array(7), more],
    );

  it.each<[string, VirtioShape, string, unknown]>([
    ['virtio-net', { own: net(0) }, '.device.promisc', 1],
    ['virtio-net', { own: net(3), features: 1n }, '.device.mac_table.in_use', 3],
    ['virtio-net', { own: net(0, ...u64(0x77)), features: 1n << 2n }, '.device.curr_guest_offloads', 0x77],
    ['virtio-blk', { own: [0] }, '.device.requests', 0],
    [
      'virtio-console',
      { own: join(u16(80), u16(25), u32(31), u32(3), u32(1), u32(1), [1, 0], u32(0)) },
      '.device.port[0].guest_connected',
      true,
    ],
    ['virtio-console', { own: join(u16(80), u16(25), u32(33), u32(3), u32(1), u32(0)) }, '.device.ports_map', [3, 1]],
    [
      'virtio-balloon',
      { own: join(u32(5), u32(6), subsection('virtio-balloon-device/page-poison', u32(7))) },
      '.device.actual',
      6,
    ],
    [
      'virtio-balloon',
      { own: join(u32(5), u32(6), subsection('virtio-balloon-device/free-page-report', u32(7), u32(8))) },
      '.device/free-page-report.free_page_hint_status',
      8,
    ],
    ['virtio-iommu', { own: [0, 0, 0, 0, 0, 1] }, '.device.boot_bypass', true],
    ['virtio-scsi', { config: [1, 2] }, '.config', Uint8Array.of(1, 2)],
  ])('contains the own state of %s', (name, shape, path, value) => {
    const { undecoded, find } = decode(name, virtioBody({ ...shape, queues: [queue] }));
    expect(undecoded).toBe(0);
    expect(find(path)).toEqual(value);
  });

  it.each<[string, VirtioShape, number]>([
    ['requests in flight', { own: [1, ...new Uint8Array(500), 0] }, 502],
    ['a subsection of a device', { own: join([0], subsection('virtio-blk/new', u32(1))) }, 1 + 20 + 4],
  ])('is decoded around %s', (_, shape, bytes) => {
    const { undecoded, virtio, find } = decode('virtio-blk', virtioBody({ ...shape, queues: [queue] }));
    expect(undecoded).toBe(bytes);
    expect(virtio?.queues[0]).toMatchObject({ desc: queue.desc, avail: queue.avail });
    expect(find('/started.started')).toBe(true);
  });

  it('of an unknown device is decoded except for its own part', () => {
    const { undecoded, virtio } = decode('virtio-9p', virtioBody({ own: [1, 2, 3], queues: [queue] }));
    expect(undecoded).toBe(3);
    expect(virtio).toMatchObject({ kind: '9P', queues: [{ size: 64 }] });
  });

  it('behind an unknown transport has its subsections', () => {
    const body = join(new Uint8Array(300).fill(0xee), virtioBody({ queues: [queue] }).subarray(330));
    const { undecoded, virtio, find } = decode('virtio-rng', body);
    expect(undecoded).toBeGreaterThan(300);
    expect(virtio).toBeUndefined();
    expect(find('/virtqueues.vq[0].avail')).toBe(0x210000);
  });

  it('of unknown content is bytes', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 700 }),
        fc.constantFrom('virtio-net', 'virtio-console', 'x'),
        (data, name) => {
          const { undecoded, find } = decode(name, data);
          expect(undecoded).toBeLessThanOrEqual(data.length);
          if (undecoded === data.length) expect(isStruct(find(''))).toBe(false);
        },
      ),
    );
  });

  it('survives a change of any byte', () => {
    const body = virtioBody({ own: net(0), queues: [queue, unused], features: 0n });
    fc.assert(
      fc.property(fc.nat(1000), fc.nat(255), (at, byte) => {
        const damaged = body.slice();
        damaged[at] = byte;
        expect(decode('virtio-net', damaged).undecoded).toBeLessThanOrEqual(body.length);
      }),
    );
  });
});

describe('a device status', () => {
  it('is named by its bits, in the order in which drivers set them', () => {
    expect(virtioStatusNames(0)).toEqual([]);
    expect(virtioStatusNames(15)).toEqual(['acknowledge', 'driver', 'features ok', 'driver ok']);
    expect(virtioStatusNames(0x40 | 0x80)).toEqual(['needs reset', 'failed']);
  });
});
