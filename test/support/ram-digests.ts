/** The RAM blocks of a file, as fixtures state those of their sources. */
import { createHash } from 'node:crypto';
import { MemoryFile } from '../../src/io/memory-file.ts';
import type { MigrationFile } from '../../src/read/open.ts';
import { openRamContent } from '../../src/store/ram-content.ts';
import type { Fixture } from '../fixture-files.ts';

type Digests = Pick<Fixture['truth'][number], 'idstr' | 'length' | 'sha256'>[];

const sorted = (list: Digests): Digests => list.toSorted((a, b) => a.idstr.localeCompare(b.idstr));

/** Reads all blocks. */
export async function ramDigests(file: MigrationFile): Promise<Digests> {
  const ram = await openRamContent(file, { makeScratch: async () => new MemoryFile() });
  const found: Digests = [];
  for (const block of ram.blocks) {
    const bytes = new Uint8Array(block.usedLength);
    for (let page = 0; page * block.pageSize < bytes.length; page++) {
      await ram.read(block, page, bytes.subarray(page * block.pageSize, (page + 1) * block.pageSize));
    }
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    found.push({ idstr: block.idstr, length: block.usedLength, sha256 });
  }
  await ram.close();
  return sorted(found);
}

/** The same of the stopped source. */
export const truthDigests = ({ truth }: Fixture): Digests =>
  sorted(truth.map(({ idstr, length, sha256 }) => ({ idstr, length, sha256 })));
