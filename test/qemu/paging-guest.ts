/**
 * Machines that translate addresses: builds page tables for a kind of paging, puts them into a machine with our code (guest/paging*.S),
 * and asks the QEMU what its CPU sees.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Qemu, type QemuTarget, type QemuVersion } from './qemu.ts';
import { waitUntil } from './wait-until.ts';

export interface PagingCase {
  name: string;
  version: QemuVersion;
  target: QemuTarget;
  machine: string;
  cpu: string;
  ramMiB: number;
  /** Where RAM begins. */
  ram: number;
  /** Where the tables begin, and the values of the CPU's registers, as the code takes them. */
  build(): { tables: TableImage; code: Uint8Array };
}

/** A page table entry by what it leads to. `shift`: log2 of the memory it maps. */
interface EntryFormat {
  entryBytes: 4 | 8;
  table(physical: number): bigint;
  memory(physical: number, shift: number): bigint;
}

/** Page tables in memory. */
class TableImage {
  readonly bytes: Uint8Array;
  #used = 0;

  constructor(
    readonly base: number,
    readonly size: number,
    readonly format: EntryFormat,
  ) {
    this.bytes = new Uint8Array(size);
  }

  /** Room for a table, zeroed. Returns its address. */
  allocate(bytes: number): number {
    const at = Math.ceil(this.#used / bytes) * bytes;
    this.#used = at + bytes;
    if (this.#used > this.size) throw new RangeError('the tables do not fit');
    return this.base + at;
  }

  write(physical: number, index: number, value: bigint): void {
    const { entryBytes } = this.format;
    const view = new DataView(this.bytes.buffer);
    const at = physical - this.base + index * entryBytes;
    if (entryBytes === 8) view.setBigUint64(at, BigInt.asUintN(64, value), true);
    else view.setUint32(at, Number(value), true);
  }

  read(physical: number, index: number): bigint {
    const { entryBytes } = this.format;
    const view = new DataView(this.bytes.buffer);
    const at = physical - this.base + index * entryBytes;
    return entryBytes === 8 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
  }
}

/** A tree in an image. `levels` from the root down. */
class Tree {
  readonly root: number;
  readonly #tables = new Map<string, number>();

  constructor(
    readonly image: TableImage,
    readonly levels: readonly { shift: number; bits: number }[],
    readonly tableBytes = 4096,
  ) {
    this.root = image.allocate(tableBytes);
  }

  /** Maps memory of the size of an entry, such as 12 for a page of 4 KiB. */
  map(virtual: bigint, physical: number, size: number, change: (entry: bigint) => bigint = (entry) => entry): void {
    let table = this.root;
    let path = '';
    for (const { shift, bits } of this.levels) {
      const index = Number((virtual >> BigInt(shift)) & ((1n << BigInt(bits)) - 1n));
      if (shift === size) {
        this.image.write(table, index, change(this.image.format.memory(physical, shift)));
        return;
      }
      path += `/${index}`;
      let next = this.#tables.get(path);
      if (next === undefined) {
        next = this.image.allocate(this.tableBytes);
        this.#tables.set(path, next);
        this.image.write(table, index, this.image.format.table(next));
      }
      table = next;
    }
    throw new RangeError(`no entry has a size of 2^${size}`);
  }
}

/** Fills pages of RAM with their address, so that each is different. */
function marks(pages: number): Uint8Array {
  const bytes = new Uint8Array(pages * 4096);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += 4096) {
    view.setUint32(at, at, true);
    view.setUint32(at + 4092, at + 1, true);
    bytes.set(new TextEncoder().encode(`page ${at >> 12} of our own`), at + 100);
  }
  return bytes;
}

/** Below are 1 MiB for the device tree. */
const armCode = 0x4010_0000;

/** Where marked memory begins in RAM, and its pages. */
const marked = { offset: 0x20_0000, pages: 32 };

/** Starts the machine, waits until its CPU has switched translation on and waits, and stops it. */
export async function startPaging(machine: PagingCase): Promise<Qemu> {
  const { version, target, cpu, ramMiB, ram } = machine;
  const dir = Qemu.makeDir();
  const { tables, code } = machine.build();
  const put = (name: string, bytes: Uint8Array) => {
    const path = join(dir, name);
    writeFileSync(path, bytes);
    return path;
  };
  const loader = (name: string, bytes: Uint8Array, at: number) => [
    '-device',
    `loader,file=${put(name, bytes)},addr=0x${at.toString(16)},force-raw=on`,
  ];
  const start = {
    // A -bios image has at least 64 KiB.
    x86_64: () => ['-bios', put('bios.bin', Buffer.concat([new Uint8Array(0xf000), code]))],
    aarch64: () => [...loader('code.bin', code, armCode), '-device', `loader,addr=0x${armCode.toString(16)},cpu-num=0`],
    riscv64: () => ['-bios', 'none', ...loader('code.bin', code, ram)],
  }[target as 'x86_64'];
  const args = [
    ...['-accel', 'tcg', '-nodefaults', '-no-user-config', '-M', machine.machine, '-cpu', cpu, '-m', String(ramMiB)],
    ...(target === 'x86_64' ? ['-vga', 'none'] : []),
    ...loader('tables.bin', tables.bytes, tables.base),
    ...loader('marks.bin', marks(marked.pages), ram + marked.offset),
    ...start(),
  ];
  const qemu = await Qemu.start({ version, target, args, dir });
  try {
    const state = async () => {
      const text = await qemu.hmp('info registers');
      return target === 'x86_64'
        ? /HLT=1/.test(text)
        : /\bpc\s+[0-9a-f]*(?:4010002[0-9a-f]|8000004[8-c])|PC=0*4010002/i.test(text);
    };
    await waitUntil('the CPU waits', state);
    await qemu.execute('stop');
    return qemu;
  } catch (error) {
    await qemu[Symbol.asyncDispose]();
    throw error;
  }
}

/** The guest-physical address of a virtual one. Undefined if nothing is mapped. */
export async function translate(qemu: Qemu, address: bigint): Promise<number | undefined> {
  const text = await qemu.hmp(`gva2gpa 0x${address.toString(16)}`);
  const found = /^gpa: (0x[0-9a-f]+|0)/.exec(text.trim());
  return found === null ? undefined : Number(found[1]);
}

/** What the CPU sees at virtual addresses that are all mapped. */
export async function readVirtual(qemu: Qemu, address: bigint, length: number): Promise<Buffer> {
  const path = join(qemu.dir, 'virtual');
  // QMP takes no number above 2^63 - 1.
  const text = await qemu.hmp(`memsave 0x${address.toString(16)} ${length} "${path}"`);
  if (text.trim() !== '') throw new Error(text);
  return readFileSync(path);
}

const patched = (name: string, at: number, values: readonly bigint[], bytes: 4 | 8): Uint8Array => {
  const code = new Uint8Array(readFileSync(new URL(`./guest/${name}.bin`, import.meta.url)));
  const view = new DataView(code.buffer);
  for (const [i, value] of values.entries()) {
    if (bytes === 8) view.setBigUint64(at + i * 8, BigInt.asUintN(64, value), true);
    else view.setUint32(at + i * 4, Number(value), true);
  }
  return code;
};

const nine = (...shifts: number[]) => shifts.map((shift) => ({ shift, bits: 9 }));

const x86Format = (entryBytes: 4 | 8): EntryFormat => ({
  entryBytes,
  table: (physical) => BigInt(physical) | 7n,
  memory: (physical, shift) => BigInt(physical) | (shift === 12 ? 0x63n : 0xe3n),
});

const PG = 0x8000_0011n;
const bios = 0xffff_f000;

interface X86Kind {
  levels: { shift: number; bits: number }[];
  entryBytes?: 4;
  cr4: bigint;
  efer: bigint;
  fill(tree: Tree): void;
  /** The root's entries of PAE have no access bits. */
  isPae?: true;
}

/** Marked pages, out of order, beside the identity of the low memory and of the code. */
function scatter(tree: Tree, ram: number, at: bigint): void {
  const page = (n: number) => ram + marked.offset + n * 4096;
  for (const [i, n] of [5, 6, 7, 1, 20, 21, 3].entries()) tree.map(at + BigInt(i * 4096), page(n), 12);
  // A hole, then one page at two places.
  tree.map(at + 0x9000n, page(30), 12);
  tree.map(at + 0xb000n, page(30), 12);
}

const x86 = (
  name: string,
  version: QemuVersion,
  { levels, entryBytes, cr4, efer, fill, isPae }: X86Kind,
): PagingCase => ({
  ...{ name, version, target: 'x86_64', machine: 'pc,acpi=off', cpu: 'max', ramMiB: 8, ram: 0 },
  build() {
    const format = x86Format(entryBytes ?? 8);
    const pae = { ...format, table: (physical: number) => BigInt(physical) | 1n };
    const tables = new TableImage(0x10_0000, 0x2_0000, format);
    const tree = new Tree(tables, levels);
    tree.map(BigInt(bios), bios, 12);
    fill(tree);
    if (isPae)
      for (let i = 0; i < 4; i++) {
        const entry = tables.read(tree.root, i);
        if (entry !== 0n) tables.write(tree.root, i, pae.table(Number(entry & ~0xfffn)));
      }
    return { tables, code: patched('paging', 0xfe0, [BigInt(tree.root), cr4, efer, PG], 4) };
  },
});

const aarch64Format: EntryFormat = {
  entryBytes: 8,
  table: (physical) => BigInt(physical) | 3n,
  memory: (physical, shift) => BigInt(physical) | 0x400n | ([12, 14, 16].includes(shift) ? 3n : 1n),
};

/** Trees of both ranges. `granule`: log2 of a page; `low`, `high`: bits of the two ranges. */
const aarch64 = (name: string, version: QemuVersion, granule: 12 | 14 | 16, low: number, high: number): PagingCase => ({
  ...{
    name,
    version,
    target: 'aarch64',
    machine: 'virt',
    cpu: version === '7.2' ? 'cortex-a57' : 'max',
    ramMiB: 8,
    ram: 0x4000_0000,
  },
  build() {
    const tables = new TableImage(0x4011_0000, 0xf_0000, aarch64Format);
    const levels = (size: number) => {
      const list: { shift: number; bits: number }[] = [];
      for (let shift: number = granule; shift < size; shift += granule - 3) {
        list.unshift({ shift, bits: Math.min(granule - 3, size - shift) });
      }
      return list;
    };
    const lower = new Tree(tables, levels(low), 2 ** granule);
    const upper = new Tree(tables, levels(high), 2 ** granule);
    const page = 2 ** granule;
    const block = 2 * granule - 3;
    // The code, by a page; a block that is larger than RAM.
    lower.map(BigInt(armCode), armCode, granule);
    lower.map(0x8000_0000n, 0x4000_0000, block);
    const base = (1n << 64n) - (1n << BigInt(high));
    const ours = 0x4000_0000 + marked.offset;
    for (const [i, n] of [2, 3, 0, 1].entries())
      upper.map(base + BigInt(0x10_0000 + i * page), ours + n * page, granule);
    upper.map((1n << 64n) - BigInt(page), ours, granule);
    const granules = { 12: [0n, 2n], 14: [2n, 1n], 16: [1n, 3n] }[granule] as [bigint, bigint];
    const tcr =
      BigInt(64 - low) |
      (granules[0] << 14n) |
      (BigInt(64 - high) << 16n) |
      (granules[1] << 30n) |
      // 52 bits of physical address, and in small pages entries that have them (LPA2).
      ((Math.max(low, high) === 52 ? 6n : 5n) << 32n) |
      (1n << 38n) |
      (Math.max(low, high) === 52 && granule < 16 ? 1n << 59n : 0n);
    const sctlr = 0x30d0_0801n;
    return { tables, code: patched('paging-aarch64', 0x80, [BigInt(lower.root), BigInt(upper.root), tcr, sctlr], 8) };
  },
});

const riscvFormat: EntryFormat = {
  entryBytes: 8,
  table: (physical) => (BigInt(physical) >> 2n) | 1n,
  memory: (physical) => (BigInt(physical) >> 2n) | 0xcfn,
};

const riscv64 = (mode: number, levels: number): PagingCase => ({
  ...{
    name: `riscv64-sv${12 + 9 * levels}`,
    version: '7.2',
    target: 'riscv64',
    machine: 'virt',
    cpu: 'rv64,svnapot=on',
    ramMiB: 8,
    ram: 0x8000_0000,
  },
  build() {
    const tables = new TableImage(0x8010_0000, 0x2_0000, riscvFormat);
    const tree = new Tree(tables, nine(...Array.from({ length: levels }, (_, i) => 12 + 9 * (levels - 1 - i))));
    tree.map(0x8000_0000n, 0x8000_0000, 12);
    tree.map(0xffff_ffff_8000_0000n, 0x8000_0000, 30);
    tree.map(0x20_0000n, 0x8020_0000, 21);
    scatter(tree, 0x8000_0000, 0xffff_ffff_0000_0000n);
    // 64 KiB that are one: each of its entries is the same.
    const napot = (1n << 63n) | (((0x8023_0000n >> 12n) | 8n) << 10n) | 0xcfn;
    for (let i = 0; i < 16; i++) tree.map(0x1_0000n + BigInt(i * 4096), 0, 12, () => napot);
    return { tables, code: patched('paging-riscv64', 0x80, [(BigInt(mode) << 60n) | BigInt(tree.root / 4096)], 8) };
  },
});

const long = { cr4: 0x20n, efer: 0x100n } as const;

/** The kinds of paging that are read, with each release that is here. */
export const pagingCases: readonly PagingCase[] = [
  x86('x86-32', '10.0', {
    ...{ levels: [22, 12].map((shift) => ({ shift, bits: 10 })), entryBytes: 4, cr4: 0x10n, efer: 0n },
    fill(tree) {
      scatter(tree, 0, 0xc000_0000n);
      tree.map(0xd000_0000n, 0, 22);
      tree.map(0n, 0x20_0000, 12);
    },
  }),
  x86('x86-pae', '7.2', {
    ...{ levels: [{ shift: 30, bits: 2 }, ...nine(21, 12)], cr4: 0x20n, efer: 0n, isPae: true },
    fill(tree) {
      scatter(tree, 0, 0x8000_0000n);
      tree.map(0x4000_0000n, 0x20_0000, 21);
      tree.map(0x4020_0000n, 0x40_0000, 21);
    },
  }),
  x86('x86-64-7.2', '7.2', { ...long, levels: nine(39, 30, 21, 12), fill: fillLong }),
  x86('x86-64-10.0', '10.0', { ...long, levels: nine(39, 30, 21, 12), fill: fillLong }),
  x86('x86-64-la57', '10.0', {
    ...{ levels: nine(48, 39, 30, 21, 12), cr4: 0x1020n, efer: 0x100n },
    fill(tree) {
      fillLong(tree);
      scatter(tree, 0, 0xff12_3456_7800_0000n);
    },
  }),
  aarch64('aarch64-4k-7.2', '7.2', 12, 39, 48),
  aarch64('aarch64-4k', '10.0', 12, 48, 39),
  aarch64('aarch64-16k', '10.0', 14, 47, 36),
  aarch64('aarch64-64k', '7.2', 16, 48, 42),
  aarch64('aarch64-4k-lpa2', '10.0', 12, 52, 50),
  aarch64('aarch64-16k-lpa2', '10.0', 14, 52, 48),
  aarch64('aarch64-64k-lpa', '10.0', 16, 52, 49),
  riscv64(8, 3),
  riscv64(9, 4),
  riscv64(10, 5),
];

function fillLong(tree: Tree): void {
  scatter(tree, 0, 0xffff_8880_0000_0000n);
  tree.map(0xffff_c900_0000_0000n, 0, 30);
  tree.map(0x40_0000n, 0x20_0000, 21);
  tree.map(0x7fff_ffff_f000n, marked.offset, 12);
  tree.map(0xffff_ffff_ffff_f000n, marked.offset + 0x8000, 12);
}
