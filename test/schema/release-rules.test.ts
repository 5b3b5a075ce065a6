import { describe, expect, it } from 'vitest';
import { type ReleaseName, releaseRulesOf } from '../../src/schema/release-rules.ts';

const short = (machine: string | undefined, version?: ReleaseName) => {
  const { switchoverStart, multifdMarks, zeroPages, pagesAllocatedInSync } = releaseRulesOf(machine, version);
  return [multifdMarks, zeroPages, switchoverStart, pagesAllocatedInSync].join(' ');
};

describe('the rules of a stream', () => {
  it.each([
    ['pc-i440fx-2.12', 'section records false true'],
    ['pc-i440fx-7.2', 'section records false true'],
    ['pc-q35-8.0', 'section records false true'],
    ['virt-8.1', 'round records false true'],
    ['pc-q35-8.2', 'round records false true'],
    ['pc-i440fx-9.0', 'round packets false true'],
    ['s390-ccw-virtio-9.2', 'round packets false true'],
    ['pc-i440fx-10.0', 'round packets true false'],
    ['virt-11.1', 'round packets true false'],
  ])('follow the machine type %s', (machine, rules) => {
    expect(short(machine)).toBe(rules);
  });

  it.each(['none', 'pc', 'pc-q35-rhel9.2.0', 'pc-i440fx-jammy', undefined])(
    'are the newest if %s names no version, except for what old versions refuse in a plain stream',
    (machine) => {
      expect(short(machine)).toBe('round packets false false');
    },
  );

  it('follow the given version if the machine type names none', () => {
    expect(short('none', '7.2')).toBe('section records false true');
    expect(short('none', '9.0')).toBe('round packets false true');
    expect(short('none', '10.0')).toBe('round packets true false');
  });

  it('follow the machine type in any version that has it', () => {
    expect(short('pc-i440fx-7.2', '10.0')).toBe('section records false false');
    expect(short('pc-i440fx-8.2', '9.0')).toBe('round records false true');
  });

  it('refuse a version without that machine type', () => {
    expect(() => releaseRulesOf('pc-i440fx-10.0', '7.2')).toThrow(
      /QEMU 7.2 does not have the machine type pc-i440fx-10.0/,
    );
    expect(() => releaseRulesOf('pc-q35-9.2', '9.0')).toThrow(RangeError);
  });

  it.each(['8.8', '', 'ten', 'toString'])('do not exist for a version "%s"', (version) => {
    expect(() => releaseRulesOf('none', version as ReleaseName)).toThrow(`of 7.2, 9.0, 10.0, got ${version}`);
  });
});
