/**
 * Compares virtual addresses with what a real QEMU's CPU sees: each address that is mapped, and each that is not. On request makes the
 * fixtures of test/tasks/addresses:
 *
 *   VMFERRY_MAKE_FIXTURES=1 npx vitest run --project 'qemu*' test/qemu/paging.test.ts
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { open, openAddressSpace, openScratch } from '../../src/node.ts';
import { type PagingCase, pagingCases, readVirtual, startPaging, translate } from './paging-guest.ts';
import { save } from './physical-guest.ts';
import { findQemu, type Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';

const fixtures = fileURLToPath(new URL('../fixtures/paging/', import.meta.url));

interface Run {
  address: bigint;
  length: number;
  bytes: Buffer;
}

async function runsOf(
  path: string,
): Promise<{ runs: Run[]; paging: string | undefined; physical: (at: bigint) => number | undefined }> {
  const file = await open(path);
  try {
    await using space = await openAddressSpace(file, { kind: 'virtual', makeScratch: () => openScratch(tmpdir()) });
    const runs: Run[] = [];
    const places: { address: bigint; length: number; at: number }[] = [];
    for await (const run of space.runs()) {
      const bytes = Buffer.alloc(run.usedLength);
      await space.ram.read(run, 0, bytes);
      runs.push({ address: run.address, length: run.usedLength, bytes });
      for (const { page, pages, block, offset } of run.parts) {
        // The BIOS is at two addresses.
        const ranges = space.layout.ranges.filter(
          (each) => each.block === block && each.offset <= offset && offset < each.offset + each.length,
        );
        places.push({
          address: run.address + BigInt(page * 4096),
          length: pages * 4096,
          at: (ranges.at(-1)?.start ?? Number.NaN) + offset - (ranges.at(-1)?.offset ?? 0),
        });
      }
    }
    const physical = (address: bigint) => {
      const place = places.find((each) => each.address <= address && address < each.address + BigInt(each.length));
      return place === undefined ? undefined : place.at + Number(address - place.address);
    };
    return { runs, paging: space.paging, physical };
  } finally {
    await file.close();
  }
}

/** Addresses at the edges of what vmferry finds, inside of it, and beside it. */
function interesting(runs: readonly Run[]): bigint[] {
  const near = runs.flatMap(({ address, length }) => {
    const end = address + BigInt(length);
    return [
      address - 1n,
      address,
      address + 0xabcn,
      address + BigInt(length >> 13) * 0x1000n,
      end - 1n,
      end,
      end + 0x1000n,
    ];
  });
  const others = [
    0n,
    0x1000n,
    0x1234_5678n,
    0x8000_0000n,
    0xc000_0000n,
    0x0000_7fff_ffff_ffffn,
    0xffff_8000_0000_0000n,
  ];
  return [...new Set([...near, ...others].map((address) => BigInt.asUintN(64, address)))];
}

async function compare(qemu: Qemu, { ram, ramMiB, target }: PagingCase, path: string) {
  const { runs, paging, physical } = await runsOf(path);
  expect(runs.length, paging).toBeGreaterThan(2);
  const isRam = (at: number) =>
    (at >= ram && at < ram + ramMiB * 2 ** 20 && (at < 0xa0000 || at >= 0x10_0000)) || at >= 0xffff_f000;
  const translations: [string, number | null][] = [];
  for (const address of interesting(runs)) {
    // A CPU of 32 bits has no such address, and a QEMU takes its lower half.
    if (/32-bit|PAE/.test(paging ?? '') && address >= 2n ** 32n) continue;
    const at = await translate(qemu, address);
    const expected =
      at === undefined || (target === 'x86_64' ? !isRam(at) : at < ram || at >= ram + ramMiB * 2 ** 20)
        ? undefined
        : at;
    expect(physical(address), `0x${address.toString(16)} of ${paging}`).toBe(expected);
    translations.push([`0x${address.toString(16)}`, expected ?? null]);
  }
  const listed: [string, number, string][] = [];
  for (const { address, length, bytes } of runs) {
    const seen = await readVirtual(qemu, address, length);
    expect(bytes.equals(seen), `0x${address.toString(16)}`).toBe(true);
    listed.push([`0x${address.toString(16)}`, length, createHash('sha256').update(seen).digest('hex')]);
  }
  return { paging, runs: listed, translations };
}

describe.skipIf(lacksQemu('7.2', '10.0'))("virtual addresses are those of QEMU's CPU", () => {
  for (const machine of pagingCases) {
    const isThere = findQemu(machine.version, machine.target) !== undefined;
    if (!isThere)
      console.warn(`skipped: ${machine.name}, because QEMU ${machine.version} for ${machine.target} is not installed`);
    test.skipIf(!isThere)(machine.name, async () => {
      await using qemu = await startPaging(machine);
      const saved = await save(qemu);
      const truth = await compare(qemu, machine, saved);
      console.log(
        `${machine.name}: ${truth.paging}, ${truth.runs.length} runs, ${truth.translations.length} addresses`,
      );
      if (process.env.VMFERRY_MAKE_FIXTURES === undefined) return;
      mkdirSync(fixtures, { recursive: true });
      writeFileSync(join(fixtures, `${machine.name}.bin.gz`), gzipSync(readFileSync(saved), { level: 9 }));
      writeFileSync(join(fixtures, `${machine.name}.json`), `${JSON.stringify(truth, null, 1)}\n`);
    });
  }
});
