/**
 * Compares the features of virtio devices (docs/check.md, "virtio"). A device refuses feature bits that its guest uses and
 * that it does not offer. No file states what a device offers, but what a guest uses was offered to it.
 */
import { isStruct, type StateStruct } from '../../devices/device-state.ts';
import { readVirtioDevice } from '../../devices/virtio-device.ts';
import { virtioFeatureNames } from '../../devices/virtio-features.ts';
import type { SectionFacts } from './check-facts.ts';
import type { CheckLog } from './check-reason.ts';

/** Judges a section of the file. `other`: the same section in the target's file. */
export function judgeVirtio(section: SectionFacts, other: SectionFacts | undefined, log: CheckLog): void {
  const { name, place } = section;
  const state = section.state?.state;
  const used = featuresOf(state);
  const field = state?.fields.find(({ type }) => type === 'virtio');
  if (state === undefined || field === undefined) return;
  const at = { ...place, offset: (section.state?.offset ?? 0) + field.offset };
  if (used === undefined) {
    const message = 'the features that the guest uses cannot be read; the target must offer them';
    const condition = `its ${name} offers the features that the guest uses`;
    log.add({ effect: 'needed', rule: 'virtio-features', message, advice, condition, place: at });
    return;
  }
  const open = used & ~(featuresOf(other?.state?.state) ?? 0n);
  if (open === 0n) return;
  const names = virtioFeatureNames(state.vmsdName, open).join(', ');
  const message = `the guest uses the features ${names} (0x${open.toString(16)}): a target that does not offer all of them refuses`;
  const condition = `its ${name} offers ${names}`;
  log.add({ effect: 'needed', rule: 'virtio-features', message, advice, condition, place: at });
}

const advice = 'give the target the same -device properties and machine type as the source';

/** Undefined if there is no virtio device, or if it is not decoded. */
function featuresOf(state: StateStruct | undefined): bigint | undefined {
  return isStruct(state) ? readVirtioDevice(state)?.features : undefined;
}
