/**
 * The truth: the bytes of every RAM block of a stopped QEMU, read from its process, independently of what it saved.
 *
 * The monitor gives names and lengths (`info ramblock`, column "Used"), /proc/PID/mem the bytes.
 *
 * The host address of a block:
 *   10.0  `info ramblock` shows it.
 *   7.2   The trace event `ram_save_page` shows block name, offset and host address of every page sent as data. So QEMU
 *         migrates to /dev/null with that event on, pauses before the switchover, and cancels. All pages of a block must
 *         agree on its address. This does not name a block without a data page. Its address is one of the unclaimed
 *         anonymous allocations of its size (trace event `qemu_anon_ram_alloc`, on from the start; see `truthArgs`), or
 *         one of the mapped memory files. If all candidates are zero, the block is zero; otherwise the truth is unknown
 *         and this throws. For a machine that never ran, the monitor shows the host addresses of all guest-visible memory
 *         (`gpa2hva`).
 */
import { closeSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Qemu, QemuVersion } from './qemu.ts';

/** The bytes of one RAM block: a sparse file of `length` bytes. */
type BlockTruth = { path: string; length: number };
export type Truth = Map<string, BlockTruth>;

type RamBlock = { idstr: string; ramAddress: number; used: number; total: number; address?: number };

/** Addresses of the RAM blocks that could be found. A block keeps its address for life. */
export type Addresses = Map<string, number>;

/** Arguments that QEMU must be started with so that its truth can be read. */
export const truthArgs = (version: QemuVersion): string[] =>
  version === '7.2' ? ['-trace', 'enable=qemu_anon_ram_*'] : [];

/** Parses `info ramblock`. Names hold no blanks: QEMU makes them from ids and paths. */
function parseRamBlocks(text: string): RamBlock[] {
  const blocks: RamBlock[] = [];
  for (const line of text.split(/\r?\n/).slice(1)) {
    const match =
      /^\s*(\S+)\s+\d+ \S+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)(?:\s+0x([0-9a-f]+)\s+r[ow])?\s*$/.exec(line);
    if (match) {
      const [, idstr, offset, used, total, address] = match;
      blocks.push({
        idstr: idstr!,
        ramAddress: parseInt(offset!, 16),
        used: parseInt(used!, 16),
        total: parseInt(total!, 16),
        ...(address ? { address: parseInt(address, 16) } : {}),
      });
    } else if (line.trim()) throw new Error(`truth: cannot read this line of 'info ramblock': ${line}`);
  }
  return blocks;
}

/** The start of each RAM block in QEMU's RAM addresses, by idstr (`info ramblock`, column "Offset"). */
export async function findRamAddresses(qemu: Qemu): Promise<Map<string, number>> {
  const blocks = parseRamBlocks(await qemu.hmp('info ramblock'));
  return new Map(blocks.map(({ idstr, ramAddress }) => [idstr, ramAddress]));
}

/** Finds the host addresses of the RAM blocks. The guest may run; 7.2 must be able to migrate. */
export async function findAddresses(qemu: Qemu): Promise<Addresses> {
  const blocks = parseRamBlocks(await qemu.hmp('info ramblock'));
  if (blocks.length === 0) throw new Error('truth: this QEMU has no RAM blocks');
  if (blocks.some((block) => block.address === undefined)) {
    const { status } = await qemu.execute<{ status: string }>('query-status');
    // A machine that never ran cannot migrate again after a cancelled migration.
    return status === 'prelaunch' ? mappedAddresses(qemu) : traceAddresses(qemu);
  }
  return new Map(blocks.map((block) => [block.idstr, block.address!]));
}

/**
 * Copies every RAM block of `qemu` to files in `dir`.
 * @param addresses found before the save, since a 7.2 that has migrated cannot migrate again
 * @throws when the guest runs, or when the address of a block is ambiguous
 */
export async function readTruth(qemu: Qemu, dir: string, addresses: Addresses): Promise<Truth> {
  const { running, status } = await qemu.execute<{ running: boolean; status: string }>('query-status');
  if (running) throw new Error(`truth: expected a stopped guest, got status ${status}`);
  const blocks = parseRamBlocks(await qemu.hmp('info ramblock'));
  const memory = openSync(`/proc/${qemu.pid}/mem`, 'r');
  try {
    const truth: Truth = new Map();
    for (const [i, block] of blocks.entries()) {
      const path = join(dir, `${i}.block`);
      const address = addresses.get(block.idstr);
      if (address === undefined) requireZeros(qemu, memory, block, new Set(addresses.values()));
      copySparse(memory, address, block.used, path);
      truth.set(block.idstr, { path, length: block.used });
    }
    return truth;
  } finally {
    closeSync(memory);
  }
}

/** Lists the differences of two truths; empty if they are equal. */
export function differences(got: Truth, expected: Truth): string[] {
  const found: string[] = [];
  for (const idstr of new Set([...got.keys(), ...expected.keys()])) {
    const [a, b] = [got.get(idstr), expected.get(idstr)].map((block) => block && readFileSync(block.path));
    if (!a || !b || a.length !== b.length)
      found.push(`${idstr}: ${a?.length ?? 'no'} bytes, expected ${b?.length ?? 'none'}`);
    else if (!a.equals(b)) {
      const first = a.findIndex((byte, i) => byte !== b[i]);
      found.push(`${idstr}: differs from offset 0x${first.toString(16)} on`);
    }
  }
  return found;
}

const CHUNK = 1 << 20;
const chunk = Buffer.alloc(CHUNK);
const zeros = Buffer.alloc(CHUNK);

/** Copies `length` bytes of another process to a file, with holes for zeros; without an address, all zero. */
function copySparse(memory: number, address: number | undefined, length: number, path: string): void {
  const out = openSync(path, 'w');
  try {
    for (let at = 0; address !== undefined && at < length; at += CHUNK) {
      const bytes = readMemory(memory, address + at, Math.min(CHUNK, length - at));
      if (!bytes.equals(zeros.subarray(0, bytes.length))) writeSync(out, bytes, 0, bytes.length, at);
    }
    ftruncateSync(out, length);
  } finally {
    closeSync(out);
  }
}

function readMemory(memory: number, address: number, length: number): Buffer {
  for (let got = 0; got < length; ) {
    const n = readSync(memory, chunk, got, length - got, address + got);
    if (n === 0) throw new Error(`truth: host address 0x${(address + got).toString(16)} cannot be read`);
    got += n;
  }
  return chunk.subarray(0, length);
}

/** For 7.2: the addresses of all blocks that have a data page. */
export async function traceAddresses(qemu: Qemu): Promise<Addresses> {
  // Pages sent by other means (compress, multifd) are not traced.
  const on = (await qemu.execute<{ capability: string; state: boolean }[]>('query-migrate-capabilities'))
    .filter(({ state }) => state)
    .map(({ capability }) => capability);
  await qemu.clearCapabilities(on);
  await qemu.setCapabilities(['pause-before-switchover']);
  // With a downtime of 0 nothing remains to be sent after the pause.
  const { 'max-bandwidth': bandwidth, 'downtime-limit': downtime } =
    await qemu.execute<Record<string, number>>('query-migrate-parameters');
  await qemu.setParameters({ 'max-bandwidth': 0, 'downtime-limit': 0 });
  await qemu.execute('trace-event-set-state', { name: 'ram_save_page', enable: true });
  await qemu.execute('migrate', { uri: 'exec:cat > /dev/null' });
  await qemu.waitForStatus('pre-switchover');
  await qemu.execute('migrate_cancel');
  await qemu.waitForStatus('cancelled');
  await qemu.execute('trace-event-set-state', { name: 'ram_save_page', enable: false });
  await qemu.clearCapabilities(['pause-before-switchover']);
  await qemu.setCapabilities(on);
  await qemu.setParameters({ 'max-bandwidth': bandwidth, 'downtime-limit': downtime });

  const addresses: Addresses = new Map();
  for (const [, idstr, offset, host] of readTrace(qemu).matchAll(
    /ram_save_page (\S+): offset: 0x([0-9a-f]+) host: 0x([0-9a-f]+)/g,
  )) {
    const address = parseInt(host!, 16) - parseInt(offset!, 16);
    if ((addresses.get(idstr!) ?? address) !== address)
      throw new Error(`truth: the pages of ${idstr} disagree on its address`);
    addresses.set(idstr!, address);
  }
  return addresses;
}

/** Also for 7.2: the host addresses of the guest-visible blocks, by their guest addresses. */
async function mappedAddresses(qemu: Qemu): Promise<Addresses> {
  const addresses: Addresses = new Map();
  const tree = await qemu.hmp('info mtree -f');
  const regions = /^ *([0-9a-f]{16})-[0-9a-f]{16} \(prio -?\d+, (?:ram|rom|romd)\): (\S+)(?: @([0-9a-f]{16}))?/gm;
  for (const [, start, idstr, offset = '0'] of tree.matchAll(regions)) {
    const host = /is 0x([0-9a-f]+)|^0x([0-9a-f]+)/m.exec(await qemu.hmp(`gpa2hva 0x${start}`));
    if (host) addresses.set(idstr!, parseInt(host[1] ?? host[2]!, 16) - parseInt(offset, 16));
  }
  return addresses;
}

const readTrace = (qemu: Qemu): string => readFileSync(join(qemu.dir, 'trace'), 'latin1');

/** Requires that a block of unknown address is zero: all memory that could be the block's is zero. */
function requireZeros(qemu: Qemu, memory: number, block: RamBlock, claimed: Set<number>): void {
  const areas = new Map<number, number>();
  for (const line of readTrace(qemu).split('\n')) {
    const alloc = /qemu_anon_ram_alloc size (\d+) ptr 0x([0-9a-f]+)/.exec(line);
    if (alloc) areas.set(parseInt(alloc[2]!, 16), Number(alloc[1]));
    const free = /qemu_anon_ram_free ptr 0x([0-9a-f]+)/.exec(line);
    if (free) areas.delete(parseInt(free[1]!, 16));
  }
  const files = readFileSync(`/proc/${qemu.pid}/maps`, 'latin1').matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw-s .* \/.*$/gm);
  for (const [, from, to] of files) areas.set(parseInt(from!, 16), parseInt(to!, 16) - parseInt(from!, 16));

  const candidates = [...areas].filter(([address, size]) => size === block.total && !claimed.has(address));
  if (candidates.length === 0)
    throw new Error(`truth: found no memory of ${block.total} bytes for ${block.idstr}; see truthArgs`);
  for (const [address, size] of candidates) {
    for (let at = 0; at < size; at += CHUNK) {
      const bytes = readMemory(memory, address + at, Math.min(CHUNK, size - at));
      if (!bytes.equals(zeros.subarray(0, bytes.length))) {
        throw new Error(`truth: ${block.idstr} had no data page, but memory that may belong to it is not zero`);
      }
    }
  }
}
