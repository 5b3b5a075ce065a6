/**
 * A virtio device in the terms of its standard: the state that its driver set up (docs/formats/devices.md, "virtio").
 */
import { isStruct, type StateStruct, type StateValue } from './device-state.ts';
import { findValue } from './find-value.ts';

/** Status, features and queues of a virtio device. */
export interface VirtioDevice {
  /** The kind of device, if known: `network`, `block`, … */
  kind: string | undefined;
  /** Bits of the device status: 1 acknowledge, 2 driver, 4 driver ok, 8 features ok, 64 needs reset, 128 failed. */
  status: number;
  /** Features that driver and device have agreed on. */
  features: bigint;
  queues: VirtioQueue[];
}

/** One virtqueue. */
export interface VirtioQueue {
  /** Number of entries. */
  size: number;
  /** Guest address of the descriptors; 0 if the queue is not set up. */
  desc: bigint;
  /** Guest addresses of the driver's and the device's area, if the stream has them. */
  avail: bigint | undefined;
  used: bigint | undefined;
  /** The entry that the device takes next. */
  lastAvailIndex: number;
  /** MSI-X vector, if there is one. */
  vector: number | undefined;
}

const kinds = new Map([
  ['virtio-net', 'network'],
  ['virtio-blk', 'block'],
  ['virtio-console', 'serial'],
  ['virtio-rng', 'entropy'],
  ['virtio-balloon', 'balloon'],
  ['virtio-scsi', 'SCSI'],
  ['virtio-9p', '9P'],
  ['virtio-gpu', 'GPU'],
  ['virtio-input', 'input'],
  ['virtio-crypto', 'crypto'],
  ['virtio-iommu', 'IOMMU'],
  ['virtio-mem', 'memory'],
  ['virtio-pmem', 'persistent memory'],
  ['vhost-vsock', 'socket'],
]);

const noVector = 0xffff;

/** Reads a virtio device from its state. Undefined for other devices, and for a body that is not decoded. */
export function readVirtioDevice(device: StateStruct): VirtioDevice | undefined {
  const body = device.fields.find(({ type }) => type === 'virtio')?.value;
  if (!isStruct(body)) return undefined;
  const queues = findValue(body, 'vq');
  const status = findValue(body, 'status');
  if (!Array.isArray(queues) || typeof status !== 'number') return undefined;
  const rings = findValue(body, '/virtqueues.vq');
  return {
    kind: kinds.get(device.vmsdName),
    status,
    features: number(findValue(body, '/64bit_features.guest_features') ?? findValue(body, 'guest_features')),
    queues: queues.filter(isStruct).map((queue, i) => {
      const ring = Array.isArray(rings) ? rings[i] : undefined;
      const of = (from: StateValue | undefined, name: string) => (isStruct(from) ? findValue(from, name) : undefined);
      const vector = of(queue, 'vector');
      return {
        size: Number(number(of(queue, 'num'))),
        desc: number(of(queue, 'desc')),
        avail: ring === undefined ? undefined : number(of(ring, 'avail')),
        used: ring === undefined ? undefined : number(of(ring, 'used')),
        lastAvailIndex: Number(number(of(queue, 'last_avail_idx'))),
        vector: typeof vector === 'number' && vector !== noVector ? vector : undefined,
      };
    }),
  };
}

function number(value: StateValue | undefined): bigint {
  return typeof value === 'number' || typeof value === 'bigint' ? BigInt(value) : 0n;
}

const statusNames: [number, string][] = [
  [1, 'acknowledge'],
  [2, 'driver'],
  [8, 'features ok'],
  [4, 'driver ok'],
  [64, 'needs reset'],
  [128, 'failed'],
];

/** Names of the bits in a device status, in the order in which a driver sets them. */
export function virtioStatusNames(status: number): string[] {
  return statusNames.filter(([bit]) => (status & bit) !== 0).map(([, name]) => name);
}
