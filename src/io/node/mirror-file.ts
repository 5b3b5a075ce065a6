/**
 * A local copy of a file on a server, which fills up as the file is read (`mirror-source.ts`). Its blocks are listed in a file beside
 * it, so that a later run goes on with it, and knows of which version of the file they are:
 *
 *     FILE          the blocks that were fetched, each at its place; when all are there, it is the file
 *     FILE.blocks   "vmferry mirror 1\n", JSON of the size, the name and the validator of the source, a newline, then one bit per block
 */
import { existsSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { HttpFile } from '../http-source.ts';
import { MirrorSource, mirrorBlockBytes } from '../mirror-source.ts';
import { NodeFile } from './file.ts';

const head = 'vmferry mirror 1\n';
/** Blocks between two writes of the list. */
const blocksBetween = 64;

/** A mirror, and what it reads of. */
export interface OpenedMirror {
  source: MirrorSource;
  /** Writes the list, and closes the copy and the source. */
  close(): Promise<void>;
}

/**
 * Opens the copy at `path` of a source with random access, or makes it.
 * @throws Error for a copy of another file or of another version of it, for one of which no list says what it is, and if the
 *   server does not tell versions apart
 */
export async function openMirror(path: string, source: HttpFile): Promise<OpenedMirror> {
  const { size = 0, name, validator } = source;
  const list = `${path}.blocks`;
  const facts = `${JSON.stringify({ size, name, validator, blockBytes: mirrorBlockBytes })}\n`;
  const begin = Buffer.from(head + facts);
  let present: Uint8Array | undefined;
  if (existsSync(list)) {
    const bytes = readFileSync(list);
    if (validator === undefined) {
      throw new Error(`${name} has no ETag and no date, so it cannot be known whether ${path} is a copy of it`);
    }
    if (!bytes.subarray(0, begin.length).equals(begin)) {
      throw new Error(`${path} is a copy of another file, or of another version of ${name}`);
    }
    present = new Uint8Array(bytes.subarray(begin.length));
  } else if (existsSync(path)) throw new Error(`${path} exists, and ${list} does not, which says what it is a copy of`);
  const fd = openSync(path, existsSync(path) ? 'r+' : 'wx+', 0o600);
  const copy = new NodeFile(fd, path, size);
  await copy.truncate(size);
  let fresh = 0;
  const write = () => {
    writeFileSync(`${list}.new`, Buffer.concat([begin, mirror.present]));
    renameSync(`${list}.new`, list);
    fresh = 0;
  };
  const mirror: MirrorSource = new MirrorSource(source, copy, {
    ...(present === undefined ? {} : { present }),
    onBlock: () => {
      if (++fresh >= blocksBetween) write();
    },
  });
  write();
  return {
    source: mirror,
    async close() {
      await mirror.close();
      await copy.sync();
      write();
      await copy.close();
      await source.close();
    },
  };
}
