/**
 * The slow reader's decoders for files that contain a stream: libvirt save images, compressed files, qcow2 snapshots.
 * Holds whole files in memory; decompresses by node:zlib and the system's programs.
 */
import { spawnSync } from 'node:child_process';
import { gunzipSync, inflateRawSync } from 'node:zlib';
import { SlowReaderError } from './cursor.ts';

export interface Unwrapped {
  bytes: Uint8Array;
  /** Offset at which the stream begins. */
  offset: number;
}

const startsWith = (bytes: Uint8Array, text: string) =>
  Buffer.from(bytes.subarray(0, text.length)).toString('latin1') === text;

/** Whether the program that decompresses this is installed. */
export function hasProgram(name: string): boolean {
  return spawnSync(name, ['--version']).error === undefined;
}

function run(program: string, args: string[], input: Uint8Array): Buffer {
  const { status, stdout, stderr } = spawnSync(program, args, { input, maxBuffer: 2 ** 30 });
  if (status !== 0) throw new SlowReaderError(`${program}: ${stderr}`, 0);
  return stdout;
}

function decompress(format: string, input: Uint8Array): Uint8Array {
  if (format !== 'gzip') return run(format, ['-dc'], input);
  try {
    return gunzipSync(input);
  } catch (error) {
    throw new SlowReaderError(`gzip: ${(error as Error).message}`, 0);
  }
}

/** Extracts the stream from its container. @throws SlowReaderError */
export function unwrap(bytes: Uint8Array, snapshot?: string): Unwrapped {
  if (startsWith(bytes, 'QFI\xfb')) return { bytes: readVmState(bytes, snapshot), offset: 0 };
  if (startsWith(bytes, 'LibvirtQemud')) return unwrapLibvirt(bytes);
  const magics = { gzip: '\x1f\x8b\x08', bzip2: 'BZh', xz: '\xfd7zXZ\0', lzop: '\x89LZO\0', zstd: '\x28\xb5\x2f\xfd' };
  for (const [format, magic] of Object.entries(magics)) {
    if (startsWith(bytes, magic)) return unwrap(decompress(format, bytes));
  }
  return { bytes, offset: 0 };
}

function unwrapLibvirt(bytes: Uint8Array): Unwrapped {
  const fail = (message: string, at: number) => new SlowReaderError(message, at);
  if (!startsWith(bytes, 'LibvirtQemudSave')) throw fail('the image is not finished', 0);
  if (bytes.length < 92) throw fail('the header breaks off', bytes.length);
  const buffer = Buffer.from(bytes);
  const isSwapped = buffer.readUInt32LE(16) > 2;
  const word = (at: number) => (isSwapped ? buffer.readUInt32BE(at) : buffer.readUInt32LE(at));
  const version = word(16);
  if (version !== 1 && version !== 2) throw fail(`version ${version}`, 16);
  const length = word(20);
  const cookie = word(32);
  if (length === 0 || length > 16 * 1024 * 1024 || 92 + length > bytes.length)
    throw fail(`${length} bytes of data`, 20);
  if (cookie >= length) throw fail(`a cookie at ${cookie}`, 32);
  const end = bytes.indexOf(0, 92);
  if (end <= 92 || end >= 92 + (cookie === 0 ? length : cookie)) throw fail('the XML has no end', 92);
  const format = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd', 'raw'][version === 1 ? 0 : word(28)];
  if (format === undefined) throw fail(`format ${word(28)}`, 28);
  if (format === 'raw') return { bytes, offset: 92 + length };
  return { bytes: decompress(format, bytes.subarray(92 + length)), offset: 0 };
}

/** All bytes of the VM state of a snapshot, cluster by cluster. */
function readVmState(bytes: Uint8Array, wanted: string | undefined): Uint8Array {
  const image = Buffer.from(bytes);
  const check = (holds: boolean, message: string, at: number) => {
    if (!holds) throw new SlowReaderError(message, at);
  };
  /** The position, if that many bytes exist. */
  const within = (at: number, length: number) => {
    check(at >= 0 && at + length <= image.length, 'cut', at);
    return at;
  };
  const u16 = (at: number) => image.readUInt16BE(within(at, 2));
  const u32 = (at: number) => image.readUInt32BE(within(at, 4));
  const u64 = (at: number) => image.readBigUInt64BE(within(at, 8));
  const size = (at: number) => {
    check(u64(at) < 2n ** 53n, 'too large', at);
    return Number(u64(at));
  };

  const version = u32(4);
  check(version === 2 || version === 3, 'version', 4);
  const clusterBits = u32(20);
  check(clusterBits >= 9 && clusterBits <= 21, 'cluster bits', 20);
  const cluster = 2 ** clusterBits;
  check(u32(32) === 0, 'encrypted', 32);
  const features = version === 3 ? u64(72) : 0n;
  check((features & ~27n) === 0n, 'features', 72);
  const isExtended = (features & 16n) !== 0n;
  const isZstd = (features & 8n) !== 0n;

  // The snapshot: by name, otherwise by id.
  const count = u32(60);
  check(count <= 65536, 'snapshots', 60);
  let at = size(64);
  check(count === 0 || (at > 0 && at % cluster === 0), 'snapshot table', 64);
  const found: { name: string; id: string; at: number }[] = [];
  for (let i = 0; i < count; i++) {
    const extra = u32(at + 36);
    check(extra <= 1024, 'extra data', at);
    const idEnd = at + 40 + extra + u16(at + 12);
    const end = idEnd + u16(at + 14);
    check(end <= image.length, 'cut', at);
    check(u32(at + 8) <= 4 * 1024 * 1024 && size(at) % cluster === 0, 'L1 table', at);
    found.push({ id: image.toString('utf8', at + 40 + extra, idEnd), name: image.toString('utf8', idEnd, end), at });
    at = Math.ceil((end - at) / 8) * 8 + at;
  }
  const entry = found.find(({ name }) => name === wanted) ?? found.find(({ id }) => id === wanted);
  if (entry === undefined) throw new SlowReaderError('no such snapshot', 60);
  const l1 = size(entry.at);
  const l1Entries = u32(entry.at + 8);
  const extra = u32(entry.at + 36);
  const stateSize = extra >= 8 ? size(entry.at + 40) : u32(entry.at + 32);
  const diskSize = extra >= 16 ? size(entry.at + 48) : size(24);
  check(stateSize > 0, 'no VM state', entry.at);

  const entryLength = isExtended ? 16 : 8;
  const reach = (cluster / entryLength) * cluster;
  const start = Math.ceil(diskSize / reach) * reach;
  check(start + stateSize <= l1Entries * reach, 'the L1 table is too short', entry.at);
  // A damaged entry adds bytes behind the stream; this much is enough.
  const state = Buffer.alloc(Math.min(stateSize, 2 ** 26));
  for (let done = 0; done < state.length; done += cluster) {
    const table = Number(u64(l1 + 8 * Math.floor((start + done) / reach)) & 0x00fffffffffffe00n);
    if (table === 0) continue;
    const l2 = table + entryLength * (Math.floor((start + done) / cluster) % (cluster / entryLength));
    readCluster(state.subarray(done, done + cluster), l2);
  }
  return state;

  function readCluster(target: Buffer, l2: number): void {
    const word = u64(l2);
    if ((word & (1n << 62n)) !== 0n) {
      const offsetBits = BigInt(70 - clusterBits);
      const offset = Number(word & ((1n << offsetBits) - 1n));
      const sectors = Number((word & 0x3fffffffffffffffn) >> offsetBits) + 1;
      const packed = image.subarray(offset, Math.floor(offset / 512) * 512 + sectors * 512);
      unpack(packed).copy(target);
      return;
    }
    const host = Number(word & 0x00fffffffffffe00n);
    if (!isExtended) {
      if ((word & 1n) === 0n && host !== 0) copy(target, host);
      return;
    }
    const bitmap = u64(l2 + 8);
    for (let i = 0; i < 32; i++) {
      const from = (i * cluster) / 32;
      if ((bitmap >> BigInt(i)) & 1n) copy(target.subarray(from, from + cluster / 32), host + from);
    }
  }

  function copy(target: Buffer, from: number): void {
    check(from + target.length <= image.length, 'the image ends', from);
    image.copy(target, 0, from, from + target.length);
  }

  function unpack(packed: Buffer): Buffer {
    // Bytes after the packed data make the program complain after it has done its work.
    if (isZstd) return spawnSync('zstd', ['-dcq'], { input: packed }).stdout.subarray(0, cluster);
    try {
      return inflateRawSync(packed);
    } catch (error) {
      throw new SlowReaderError(`deflate: ${(error as Error).message}`, 0);
    }
  }
}
