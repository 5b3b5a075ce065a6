import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { loadContainerFixtures } from '../container-fixtures.ts';
import { unwrap } from './containers.ts';
import { slowRead } from './slow-reader.ts';

describe('slow reader: streams inside other files', () => {
  it.each(loadContainerFixtures())('reads the RAM in $name', ({ bytes, streams }) => {
    expect(streams).not.toEqual([]);
    for (const { snapshot, truth } of streams) {
      const { bytes: stream, offset } = unwrap(bytes, snapshot);
      const { blocks, complete } = slowRead(stream, offset);
      expect(complete).toBe(true);
      const hashes = blocks.map(({ idstr, content, usedLength }) => ({
        idstr,
        length: usedLength,
        sha256: createHash('sha256').update(content).digest('hex'),
      }));
      expect(hashes.sort((a, b) => a.idstr.localeCompare(b.idstr))).toEqual(
        [...truth].sort((a, b) => a.idstr.localeCompare(b.idstr)),
      );
    }
  });
});
