/**
 * A local copy of a file on a server, which fills up as the file is read (`mirror-source.ts`). Until it is whole, its blocks
 * are listed in a file beside it, so that a later run goes on with it:
 *
 *     FILE          the blocks that were fetched, each at its place; when all are there, it is the file
 *     FILE.blocks   "vmferry mirror 1\n", JSON of the size and the name of the source, a newline, then one bit per block
 */
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { type OpenedSource, readFully } from '../byte-source.ts';
import { MirrorSource, mirrorBlockBytes } from '../mirror-source.ts';
import { NodeFile } from './file.ts';

const head = 'vmferry mirror 1\n';
/** Blocks between two writes of the list, and bytes by which a whole copy is recognized. */
const [blocksBetween, sameBytes] = [64, 16 * 1024];

/** A mirror, and what it reads of. */
export interface OpenedMirror {
  source: MirrorSource;
  /** Writes the list, and closes the copy and the source. */
  close(): Promise<void>;
}

/** Opens the copy at `path` of a source with random access, or makes it. @throws Error for a copy of another file */
export async function openMirror(path: string, source: OpenedSource): Promise<OpenedMirror> {
  const list = `${path}.blocks`;
  const facts = `${JSON.stringify({ size: source.size, name: source.name, blockBytes: mirrorBlockBytes })}\n`;
  const begin = Buffer.from(head + facts);
  let present: Uint8Array | undefined;
  if (existsSync(list)) {
    const bytes = readFileSync(list);
    if (!bytes.subarray(0, begin.length).equals(begin)) throw new Error(`${path} is a copy of another file`);
    present = new Uint8Array(bytes.subarray(begin.length));
  } else if (existsSync(path)) {
    if (!(await isSame(path, source))) throw new Error(`${path} exists, and is not a copy of ${source.name}`);
    present = new Uint8Array(Math.ceil((source.size ?? 0) / mirrorBlockBytes / 8)).fill(0xff);
  }
  const fd = openSync(path, existsSync(path) ? 'r+' : 'wx+', 0o600);
  const copy = new NodeFile(fd, path, source.size ?? 0);
  await copy.truncate(source.size ?? 0);
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
  if (!mirror.isWhole) write();
  return {
    source: mirror,
    async close() {
      await mirror.close();
      await copy.sync();
      if (mirror.isWhole) rmSync(list, { force: true });
      else write();
      await copy.close();
      await source.close();
    },
  };
}

/** Whether a whole copy has the size and the beginning of a source. */
async function isSame(path: string, source: OpenedSource): Promise<boolean> {
  if (statSync(path).size !== source.size) return false;
  const [here, there] = [new Uint8Array(sameBytes), new Uint8Array(sameBytes)];
  const fd = openSync(path, 'r');
  try {
    const count = readSync(fd, here, 0, sameBytes, 0);
    await readFully(source, there.subarray(0, count), 0);
    return here.every((byte, i) => byte === there[i]);
  } finally {
    closeSync(fd);
  }
}
