import { describe, expect, it } from 'vitest';
import { PortableCodecs } from '../../src/io/portable-codecs.ts';
import { arenaBytes, encodeSlackBytes } from '../../src/kernel/arena-budget.ts';
import { loadKernelFor } from '../../src/kernel/load-kernel.ts';
import { PageBatch, pageBatchArenaBytes } from '../../src/kernel/page-batch.ts';
import { PageSlots, pageSlotsArenaBytes } from '../../src/kernel/page-slots.ts';
import { FlowBuffers, flowArenaBytes } from '../../src/read/flow-reader.ts';
import { DeltaScan, deltaScanArenaBytes } from '../../src/write/delta-scan.ts';
import { RamScan, ramScanArenaBytes } from '../../src/write/ram-scan.ts';
import { StreamWriter, writerArenaBytes } from '../../src/write/stream-writer.ts';

describe('an arena', () => {
  it('of the stated size holds every allocation, whatever comes before it', async () => {
    const sizes = [1, 63, 65, 4096, 0];
    const kernel = await loadKernelFor([arenaBytes(...sizes), arenaBytes(1 << 20)]);
    for (const size of sizes) kernel.allocate(size);
    expect(() => kernel.allocate(1 << 20)).not.toThrow();
  });

  it('holds all components of a stream with a base', async () => {
    const kernel = await loadKernelFor([
      writerArenaBytes,
      ramScanArenaBytes,
      deltaScanArenaBytes,
      pageSlotsArenaBytes(4096),
      pageBatchArenaBytes(1001),
    ]);
    new StreamWriter(kernel, { write() {} });
    new RamScan(kernel);
    new DeltaScan(kernel);
    new PageSlots(kernel, 4096);
    expect(() => new PageBatch(kernel, 1001)).not.toThrow();
  });

  it.each([
    { channels: 0, hasSide: false },
    { channels: 3, hasSide: true },
    { channels: 255, hasSide: false },
  ])('holds what reads $channels channels, side window: $hasSide, and little more', async (sources) => {
    const kernel = await loadKernelFor([flowArenaBytes(sources)]);
    new FlowBuffers(kernel, new PortableCodecs(), sources);
    // For alignment, whole WebAssembly pages, and the module itself.
    expect(() => kernel.allocate(256 << 10)).toThrow(RangeError);
  });

  it("leaves space after the output for the encoder's slack", async () => {
    const { xbzrleEncodeSlack } = await loadKernelFor([]);
    expect(encodeSlackBytes).toBeGreaterThanOrEqual(xbzrleEncodeSlack);
  });
});
