/** The same jobs as plain loops over typed arrays: the alternative to WebAssembly. */
export function zeroScan(pages: Uint8Array, pageSize: number, bitmap: Uint8Array): void {
  bitmap.fill(0);
  for (let page = 0, i = 0; page < pages.length; page += pageSize, i++) {
    let at = page;
    const end = page + pageSize;
    while (at < end && pages[at] === 0) at++;
    if (at === end) bitmap[i >> 3]! |= 1 << (i & 7);
  }
}

export function comparePages(a: Uint8Array, b: Uint8Array, pageSize: number, bitmap: Uint8Array): void {
  bitmap.fill(0);
  for (let page = 0, i = 0; page < a.length; page += pageSize, i++) {
    let at = page;
    const end = page + pageSize;
    while (at < end && a[at] === b[at]) at++;
    if (at < end) bitmap[i >> 3]! |= 1 << (i & 7);
  }
}

/** Encodes the page at `page` of both arrays to `to` of `out`. Returns its length, 0 if equal, -1 on overflow. */
export function encode(
  old: Uint8Array,
  next: Uint8Array,
  page: number,
  pageSize: number,
  out: Uint8Array,
  to: number,
): number {
  const end = page + pageSize;
  const limit = to + pageSize;
  let i = page;
  let d = to;
  while (i < end) {
    if (d + 2 > limit) return -1;
    let start = i;
    while (i < end && old[i] === next[i]) i++;
    if (i - start === pageSize) return 0;
    if (i === end) return d - to;
    let count = i - start;
    if (count < 0x80) {
      out[d++] = count;
    } else {
      out[d++] = (count & 0x7f) | 0x80;
      out[d++] = count >> 7;
    }
    if (d + 2 > limit) return -1;
    start = i;
    while (i < end && old[i] !== next[i]) i++;
    count = i - start;
    if (count < 0x80) {
      out[d++] = count;
    } else {
      out[d++] = (count & 0x7f) | 0x80;
      out[d++] = count >> 7;
    }
    if (d + count > limit) return -1;
    for (let k = start; k < i; k++) out[d++] = next[k]!;
  }
  return d - to;
}

export function decode(
  source: Uint8Array,
  from: number,
  length: number,
  pages: Uint8Array,
  page: number,
  pageSize: number,
): number {
  const end = from + length;
  let i = from;
  let d = 0;
  while (i < end) {
    for (let isLiteral = 0; isLiteral < 2; isLiteral++) {
      if (end - i < 2) return -1;
      const at = i;
      let count = source[i++]!;
      if (count & 0x80) {
        const high = source[i++]!;
        if (high & 0x80) return -1;
        count = (count & 0x7f) | (high << 7);
      }
      if (count === 0 && (isLiteral === 1 || at !== from)) return -1;
      if (d + count > pageSize) return -1;
      if (isLiteral === 1) {
        if (i + count > end) return -1;
        for (let k = 0; k < count; k++) pages[page + d + k] = source[i + k]!;
        i += count;
      }
      d += count;
    }
  }
  return d;
}

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  return crc;
});

export function crc32Pages(pages: Uint8Array, pageSize: number, crcs: Uint32Array): void {
  for (let page = 0, i = 0; page < pages.length; page += pageSize, i++) {
    let crc = -1;
    for (let at = page; at < page + pageSize; at++) crc = (crc >>> 8) ^ table[(crc ^ pages[at]!) & 0xff]!;
    crcs[i] = ~crc;
  }
}
