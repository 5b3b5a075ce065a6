import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findAcpiMemory } from '../../../src/tasks/extract/acpi-memory.ts';

const GiB = 2 ** 30;

interface Range {
  base: number;
  length: number;
}

function table(signature: string, ...parts: Uint8Array[]): Buffer {
  const head = Buffer.alloc(36);
  head.write(signature, 0, 'latin1');
  const whole = Buffer.concat([head, ...parts]);
  whole.writeUInt32LE(whole.length, 4);
  return whole;
}

const words = (size: number, at: number, { base, length }: Range) => {
  const bytes = Buffer.alloc(size);
  bytes.writeBigUInt64LE(BigInt(base), at);
  bytes.writeBigUInt64LE(BigInt(length), at + 8);
  return bytes;
};

/** An entry of an NFIT: u16 type, u16 length. */
function nvdimm(range: Range): Buffer {
  const entry = words(56, 32, range);
  entry.writeUInt16LE(entry.length, 2);
  return entry;
}

/** An entry of a CEDT: u8 type, u16 length. */
function window(range: Range, type = 1): Buffer {
  const entry = words(40, 8, range);
  entry[0] = type;
  entry.writeUInt16LE(entry.length, 2);
  return entry;
}

/** A QWord resource among other bytecode. */
function pciMemory(first: number, last: number): Buffer {
  const resource = Buffer.concat([Buffer.of(0x8a, 0x2b, 0, 0, 0x0c, 3), words(40, 8, { base: first, length: last })]);
  return Buffer.concat([Buffer.from('AML?'), resource, Buffer.from('AML?')]);
}

const nfit = (...ranges: Range[]) => table('NFIT', Buffer.alloc(4), ...ranges.map(nvdimm));
const facs = Buffer.concat([Buffer.from('FACS'), Buffer.of(64), Buffer.alloc(59)]);

describe('memory in ACPI tables', () => {
  it('has NVDIMMs, CXL windows and PCI addresses, each in a table', () => {
    const ranges = [
      { base: 5 * GiB, length: GiB },
      { base: 4 * GiB, length: GiB },
    ];
    const cedt = table('CEDT', window({ base: 1, length: 2 }, 0), window({ base: 16 * GiB, length: 8 * GiB }));
    const dsdt = table('DSDT', pciMemory(0, 2 ** 53), pciMemory(30 * GiB, 32 * GiB - 1), pciMemory(24 * GiB, 25 * GiB));
    expect(findAcpiMemory(Buffer.concat([facs, dsdt, nfit(...ranges), cedt]))).toEqual({
      affinity: undefined,
      nvdimms: ranges,
      pciWindow: { base: 24 * GiB, length: 8 * GiB },
      cxlWindows: [{ base: 16 * GiB, length: 8 * GiB }],
    });
  });

  it('has no PCI addresses above 4 GiB where the DSDT shows none', () => {
    expect(findAcpiMemory(table('DSDT', pciMemory(0xc000_0000, 0xdfff_ffff)))?.pciWindow).toEqual({
      base: 0,
      length: 0,
    });
    expect(findAcpiMemory(nfit())?.pciWindow).toBeUndefined();
  });

  it('is not taken from a name inside another table, or from a table that is cut', () => {
    const inside = table('DSDT', nfit({ base: 4 * GiB, length: GiB }));
    expect(findAcpiMemory(inside)?.nvdimms).toEqual([]);
    const cut = nfit({ base: 4 * GiB, length: GiB });
    expect(findAcpiMemory(cut.subarray(0, cut.length - 1))).toBeUndefined();
    cut.writeUInt16LE(300, 42);
    expect(findAcpiMemory(cut)).toBeUndefined();
    expect(findAcpiMemory(facs)).toBeUndefined();
  });

  it('never throws, and ranges are safe integers', () => {
    const whole = Buffer.concat([
      table('DSDT', pciMemory(24 * GiB, 25 * GiB)),
      nfit({ base: 4 * GiB, length: GiB }),
      table('CEDT', window({ base: 16 * GiB, length: GiB })),
    ]);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, value) => {
        const bytes = Buffer.from(whole);
        bytes[at] = value;
        const { nvdimms = [], cxlWindows = [], pciWindow } = findAcpiMemory(bytes) ?? {};
        for (const { base, length } of [...nvdimms, ...cxlWindows, ...(pciWindow === undefined ? [] : [pciWindow])]) {
          expect(Number.isSafeInteger(base + length)).toBe(true);
        }
      }),
    );
  });
});
