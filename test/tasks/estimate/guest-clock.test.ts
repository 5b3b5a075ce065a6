import { describe, expect, it } from 'vitest';
import { MemoryFile, open } from '../../../src/index.ts';
import { openSavedVm } from '../../../src/store/ram-content.ts';
import { guestClock, hasGuestClock } from '../../../src/tasks/estimate/guest-clock.ts';
import { loadFixtures } from '../../fixture-files.ts';

async function vmOf(wanted: string) {
  const { bytes } = loadFixtures().find(({ name }) => name === wanted)!;
  return openSavedVm(await open(bytes), { makeScratch: () => new MemoryFile(), devices: hasGuestClock });
}

describe("the guest's clock", () => {
  it('is in one section, and no other needs to be kept for it', async () => {
    const vm = await vmOf('pc-plain-10.0');
    expect(vm.devices.map(({ name }) => name)).toEqual(['timer']);
    expect(guestClock(vm)).toBeCloseTo(435.872716, 6);
  });

  it('is unknown without the section', async () => {
    expect(guestClock({ ...(await vmOf('pc-plain-10.0')), devices: [] })).toBeUndefined();
  });
});
