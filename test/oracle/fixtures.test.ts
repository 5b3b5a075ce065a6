import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { loadFixtures, loadPartedFixtures, type PartedFixture } from '../fixture-files.ts';
import { slowRead, slowReadParts } from './slow-reader.ts';

describe('slow reader: output of QEMU', () => {
  const fixtures = loadFixtures();

  it('has fixtures', () => {
    expect(fixtures).not.toEqual([]);
  });

  it.each([...fixtures, ...loadPartedFixtures()])('reads the RAM of $name', (fixture) => {
    const { bytes, offset, channels, truth } = fixture;
    const isParted = 'resumeOf' in fixture;
    const result = isParted ? slowReadParts(bytes, fixture as PartedFixture) : slowRead(bytes, offset, channels);
    expect(result.complete).toBe(true);
    expect(result.blocks.map(({ idstr }) => idstr).sort()).toEqual(truth.map(({ idstr }) => idstr).sort());
    for (const { idstr, length, sha256 } of truth) {
      const block = result.blocks.find((each) => each.idstr === idstr);
      expect(block?.usedLength, idstr).toBe(length);
      expect(createHash('sha256').update(block!.content).digest('hex'), idstr).toBe(sha256);
    }
  });
});
