import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { slowRead } from './slow-reader.ts';

describe('slow reader: what QEMU wrote', () => {
  interface Truth {
    offset?: number;
    capabilities?: string[];
    truth: { idstr: string; length: number; sha256: string }[];
  }
  const fixtures = new URL('../fixtures/', import.meta.url);
  const names = (existsSync(fixtures) ? readdirSync(fixtures) : [])
    .filter((file) => file.endsWith('.bin'))
    .map((file) => file.slice(0, -'.bin'.length));

  it('has fixtures', () => {
    expect(names).not.toEqual([]);
  });

  it.each(names)('reads the RAM of %s', (name) => {
    const about = JSON.parse(readFileSync(new URL(`${name}.json`, fixtures), 'utf8')) as Truth;
    const result = slowRead(readFileSync(new URL(`${name}.bin`, fixtures)), about.offset);
    expect(result.complete).toBe(true);

    // With multifd over sockets, the main channel lists the blocks, but their pages went elsewhere.
    const isElsewhere = result.format === 'stream' && about.capabilities?.includes('multifd');
    const sum = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
    for (const { idstr, length, sha256 } of about.truth) {
      const block = result.blocks.find((each) => each.idstr === idstr);
      expect(block, idstr).toBeDefined();
      expect(block!.usedLength, idstr).toBe(length);
      if (!isElsewhere) expect(sum(block!.content), idstr).toBe(sha256);
    }
  });
});
