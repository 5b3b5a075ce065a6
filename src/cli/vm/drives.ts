/** The disks of `--drive`. */
import { openDriveFile } from '../../io/node/drive-file.ts';
import { BlockNode, BlockNodes } from '../../migrate/block-node.ts';
import { UsageError } from '../exit-codes.ts';

/** Opens `id=ID,file=PATH[,format=qcow2|raw]`, one disk each. @throws UsageError for a malformed one; the errors of files */
export async function openDrives(specs: readonly string[]): Promise<BlockNodes> {
  const opened: BlockNode[] = [];
  for (const spec of specs) {
    const { id, file, format } = parseDrive(spec);
    if (opened.some((node) => node.id === id))
      throw new UsageError(`expected different ids of drives, got ${id} twice`);
    opened.push(await BlockNode.open({ id, path: file, format, ...(await openDriveFile(file)) }));
  }
  return new BlockNodes(opened);
}

const names = ['id', 'file', 'format'];

function parseDrive(spec: string): { id: string; file: string; format: 'qcow2' | 'raw' | undefined } {
  // As in QEMU, two commas are one in a value.
  const parts = spec.split(/(?<!,),(?!,)/).map((part) => part.replaceAll(',,', ','));
  const given = new Map(parts.map((part) => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)]));
  const [id, file, format] = names.map((name) => given.get(name));
  const isKnown = [...given.keys()].every((name) => names.includes(name));
  if (id === undefined || file === undefined || !isKnown || !/^[A-Za-z][\w.-]*$/.test(id)) {
    throw new UsageError(`expected id=ID,file=PATH[,format=qcow2|raw] for a drive, got ${spec}`);
  }
  if (format === undefined || format === 'qcow2' || format === 'raw') return { id, file, format };
  throw new UsageError(`expected the format qcow2 or raw, got ${format}`);
}
