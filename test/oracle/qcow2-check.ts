/**
 * The slow reader of a qcow2 image's refcounts: counts each use of each cluster, and compares with what the image says.
 * Like `qemu-img check`, for images of version 3 with refcounts of 16 bits, without compression and subclusters.
 */

/** What is wrong with an image; empty if nothing is. A refcount that is too high is a leak. */
export function checkQcow2(image: Buffer): string[] {
  const at64 = (at: number) =>
    at + 8 <= image.length ? Number(image.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n) : 0;
  const flagAt = (at: number) => at < image.length && (image[at] as number) >= 0x80;
  const size = 2 ** image.readUInt32BE(20);
  const uses = new Map<number, number>();
  const use = (offset: number, bytes: number) => {
    for (let cluster = Math.floor(offset / size); cluster * size < offset + bytes; cluster++) {
      uses.set(cluster, (uses.get(cluster) ?? 0) + 1);
    }
  };
  const table = Number(image.readBigUInt64BE(48));
  const tableBytes = image.readUInt32BE(56) * size;
  const refcount = (cluster: number) => {
    const entry = Math.floor(cluster / (size / 2));
    const block = entry * 8 < tableBytes ? at64(table + 8 * entry) : 0;
    return block === 0 ? 0 : image.readUInt16BE(block + 2 * (cluster % (size / 2)));
  };
  const problems: string[] = [];
  use(0, 1);
  use(table, tableBytes);
  for (let at = table; at < table + tableBytes; at += 8) if (at64(at) !== 0) use(at64(at), size);

  const walk = (l1: number, entries: number, isActive: boolean) => {
    if (entries > 0) use(l1, 8 * entries);
    for (let i = 0; i < entries; i++) {
      const l2 = at64(l1 + 8 * i);
      if (l2 === 0) continue;
      use(l2, size);
      if (isActive && flagAt(l1 + 8 * i) !== (refcount(l2 / size) === 1)) problems.push(`flag of L1 entry ${i}`);
      for (let at = l2; at < l2 + size; at += 8) {
        const data = at64(at);
        if (data === 0) continue;
        use(data, size);
        if (isActive && flagAt(at) !== (refcount(data / size) === 1)) problems.push(`flag of L2 entry at ${at}`);
      }
    }
  };
  walk(Number(image.readBigUInt64BE(40)), image.readUInt32BE(36), true);
  let at = Number(image.readBigUInt64BE(64));
  const snapshots = at;
  for (let left = image.readUInt32BE(60); left > 0; left--) {
    walk(Number(image.readBigUInt64BE(at)), image.readUInt32BE(at + 8), false);
    at += 40 + image.readUInt32BE(at + 36) + image.readUInt16BE(at + 12) + image.readUInt16BE(at + 14);
    at = Math.ceil(at / 8) * 8;
  }
  if (at > snapshots) use(snapshots, at - snapshots);

  // Dirty bitmaps, if the image vouches for them.
  if ((image.readBigUInt64BE(88) & 1n) === 1n) {
    for (let head = image.readUInt32BE(100); image.readUInt32BE(head) !== 0; ) {
      const length = image.readUInt32BE(head + 4);
      if (image.readUInt32BE(head) === 0x23852875) {
        const [bytes, directory] = [Number(image.readBigUInt64BE(head + 16)), Number(image.readBigUInt64BE(head + 24))];
        use(directory, bytes);
        for (let entry = directory; entry < directory + bytes; ) {
          const [bitmap, entries] = [Number(image.readBigUInt64BE(entry)), image.readUInt32BE(entry + 8)];
          use(bitmap, 8 * entries);
          for (let at = bitmap; at < bitmap + 8 * entries; at += 8) if (at64(at) !== 0) use(at64(at), size);
          entry += Math.ceil((24 + image.readUInt16BE(entry + 18) + image.readUInt32BE(entry + 20)) / 8) * 8;
        }
      }
      head += 8 + Math.ceil(length / 8) * 8;
    }
  }

  const clusters = Math.max(Math.ceil(image.length / size), ...[...uses.keys()].map((cluster) => cluster + 1));
  for (let cluster = 0; cluster < clusters; cluster++) {
    const used = uses.get(cluster) ?? 0;
    if (used !== refcount(cluster)) problems.push(`cluster ${cluster}: used ${used}, refcount ${refcount(cluster)}`);
  }
  return problems;
}
