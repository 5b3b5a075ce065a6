/** A small qcow2 image of version 3, with a disk whose clusters hold their own number. */

export const clusterSize = 512;
const tableClusters = clusterSize / 8;

export interface DiskOptions {
  /** Clusters of the disk. */
  clusters: number;
  /** Which of them have data. */
  allocated: readonly number[];
}

/** Header, refcount table, 4 refcount blocks, L1 table of a cluster, L2 tables, data. */
export function makeDisk({ clusters, allocated }: DiskOptions): Buffer {
  const l1Entries = Math.ceil(clusters / tableClusters);
  const firstL2 = 7;
  const image = Buffer.alloc((firstL2 + l1Entries + allocated.length) * clusterSize);
  image.writeUInt32BE(0x514649fb, 0);
  image.writeUInt32BE(3, 4);
  image.writeUInt32BE(9, 20);
  image.writeBigUInt64BE(BigInt(clusters * clusterSize), 24);
  image.writeUInt32BE(l1Entries, 36);
  image.writeBigUInt64BE(BigInt(6 * clusterSize), 40);
  image.writeBigUInt64BE(BigInt(clusterSize), 48);
  image.writeUInt32BE(1, 56);
  image.writeUInt32BE(4, 96);
  image.writeUInt32BE(104, 100);
  for (let i = 0; i < 4; i++) image.writeBigUInt64BE(BigInt((2 + i) * clusterSize), clusterSize + 8 * i);
  const copied = 1n << 63n;
  for (let i = 0; i < l1Entries; i++) {
    image.writeBigUInt64BE(BigInt((firstL2 + i) * clusterSize) | copied, 6 * clusterSize + 8 * i);
  }
  for (const [i, cluster] of allocated.entries()) {
    const place = (firstL2 + l1Entries + i) * clusterSize;
    image.writeBigUInt64BE(BigInt(place) | copied, firstL2 * clusterSize + 8 * cluster);
    image.fill(cluster, place, place + clusterSize);
  }
  for (let i = 0; i * clusterSize < image.length; i++) image.writeUInt16BE(1, 2 * clusterSize + 2 * i);
  return image;
}

/** The disk as the active tables have it. */
export function readDisk(image: Buffer): Buffer {
  const offsetAt = (at: number) => Number(image.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n);
  const disk = Buffer.alloc(Number(image.readBigUInt64BE(24)));
  for (let at = 0; at < disk.length; at += clusterSize) {
    const cluster = at / clusterSize;
    const l2 = offsetAt(Number(image.readBigUInt64BE(40)) + 8 * Math.floor(cluster / tableClusters));
    const data = l2 === 0 ? 0 : offsetAt(l2 + 8 * (cluster % tableClusters));
    if (data !== 0) image.copy(disk, at, data, data + clusterSize);
  }
  return disk;
}

/** Gives a cluster of the disk new data, as a guest that writes: in place if its flags allow that. */
export function writesInPlace(image: Buffer, cluster: number): boolean {
  const l1 = Number(image.readBigUInt64BE(40)) + 8 * Math.floor(cluster / tableClusters);
  const l2 = Number(image.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
  const entry = l2 === 0 ? 0n : image.readBigUInt64BE(l2 + 8 * (cluster % tableClusters));
  const mayWrite = (image[l1] as number) >= 0x80 && entry >= 1n << 63n;
  if (mayWrite) image.fill(0xee, Number(entry & 0x00ff_ffff_ffff_fe00n), Number(entry & 0x00ff_ffff_ffff_fe00n) + 512);
  return mayWrite;
}
