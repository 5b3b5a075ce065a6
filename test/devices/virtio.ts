/** Builds the body of a virtio device by hand, as QEMU writes it. */
import { join, subsection, u16, u32, u64 } from '../oracle/build.ts';

export interface VirtioShape {
  /** Bytes of the configuration space; 0 means MMIO. */
  pci?: 0 | 256 | 4096;
  /** MSI-X vectors. */
  vectors?: number;
  queues?: { size: number; desc: bigint; avail: bigint; used: bigint; last: number; vector: number }[];
  features?: bigint;
  status?: number;
  config?: number[];
  /** The device's own state. */
  own?: Uint8Array | number[];
  /** Bytes that replace the subsections. */
  tail?: Uint8Array;
}

/** A configuration space with another capability before that of MSI-X. */
function configurationSpace(bytes: number, vectors: number): Uint8Array {
  const space = new Uint8Array(bytes);
  space.set([0xf4, 0x1a, 0x41, 0x10]);
  if (vectors === 0) return space;
  space[0x34] = 0x40;
  space.set([0x09, 0x50], 0x40);
  space.set([0x11, 0x00, (vectors - 1) & 0xff, (vectors - 1) >> 8], 0x50);
  return space;
}

const all = 1024;

export function virtioBody(shape: VirtioShape): Uint8Array {
  const { pci = 256, vectors = 2, queues = [], features = 1n << 32n, status = 15, config = [], own = [] } = shape;
  const table = Array.from({ length: pci === 0 ? 0 : vectors }, (_, i) => [
    ...u32(0),
    ...u32(0),
    i,
    0,
    0,
    0,
    ...u32(0),
  ]);
  const transport =
    pci === 0
      ? join(u32(0), u32(1), u32(12))
      : join(
          ...[u32(2), configurationSpace(pci, vectors), new Uint8Array(16), table.flat()],
          ...(vectors > 0 ? [new Uint8Array(Math.ceil(vectors / 8)), u16(0)] : []),
        );
  const ofQueue = ({ size, desc, last, vector }: NonNullable<VirtioShape['queues']>[number]) =>
    join(u32(size), pci === 0 ? u32(4096) : [], u64(desc), u16(last), pci !== 0 && vectors > 0 ? u16(vector) : []);
  const rings = join(...queues.map(({ avail, used }) => join(u64(avail), u64(used))));
  const states = new Uint8Array(all * (pci === 0 ? 27 : 28));
  return join(
    ...[transport, [status, 0], u16(1), u32(Number(features & 0xffffffffn)), u32(config.length), config],
    ...[u32(queues.length), ...queues.map(ofQueue), own],
    shape.tail ??
      join(
        subsection('virtio/64bit_features', u64(features)),
        subsection('virtio/virtqueues', rings, new Uint8Array(all * 16 - rings.length)),
        subsection('virtio/ringsize', new Uint8Array(all * 4)),
        subsection(
          'virtio/extra_state',
          pci === 0
            ? subsection('virtio_mmio/state', u32(1), u32(2), states)
            : subsection('virtio_pci/modern_state', u32(0), u32(1), u32(2), u32(3), states),
        ),
        subsection('virtio/started', [1]),
      ),
  );
}
