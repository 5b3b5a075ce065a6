/** Zip archives of captures: selects a member, and the multifd channels beside it. */
import { announcements, type ByteSource } from '../../io/byte-source.ts';
import { openZipMember, readZip, type ZipArchive, type ZipMember } from '../../io/zip.ts';

/** No member of a zip archive with several was named, or one that does not exist. The message lists the members. */
export class MemberError extends RangeError {
  override readonly name = 'MemberError';
  readonly archive: ZipArchive;
  /** The given name. */
  readonly wanted: string | undefined;

  constructor(archive: ZipArchive, wanted: string | undefined) {
    const { source, members } = archive;
    const names = members.map(({ name }) => `"${name}"`);
    const listed = names.slice(0, 20).join(', ') + (names.length > 20 ? ', …' : '');
    const what = names.length === 0 ? 'it is empty' : `it has ${listed}`;
    super(
      wanted === undefined
        ? `expected a member of the zip archive ${source.name}, as ${source.name}#NAME: ${what}`
        : `expected a member of the zip archive ${source.name}, got "${wanted}": ${what}`,
    );
    this.archive = archive;
    this.wanted = wanted;
  }
}

/** The selected part of an archive. */
export interface ChosenMember {
  member: ZipMember;
  /** The channels of its multifd set, `NAME.0`, `NAME.1` and so on. */
  channels: ZipMember[];
  /** The selected part of the member: the rest of a name such as `disk.qcow2#SNAPSHOT`. */
  inside: string | undefined;
}

/**
 * Finds the member with the name `wanted`. Without a name: the only member, or the one whose channels are all the
 * others.
 * @throws MemberError
 */
export function chooseMember(archive: ZipArchive, wanted: string | undefined): ChosenMember {
  const byName = new Map(archive.members.map((member) => [member.name, member]));
  const choose = (member: ZipMember, inside?: string) => ({ member, channels: channelsOf(member, byName), inside });
  if (wanted === undefined) {
    const main = archive.members.find((member) => channelsOf(member, byName).length === archive.members.length - 1);
    if (main === undefined) throw new MemberError(archive, undefined);
    return choose(main);
  }
  const named = byName.get(wanted);
  if (named !== undefined) return choose(named);
  for (let at = wanted.lastIndexOf('#'); at > 0; at = wanted.lastIndexOf('#', at - 1)) {
    const member = byName.get(wanted.slice(0, at));
    if (member !== undefined) return choose(member, wanted.slice(at + 1));
  }
  throw new MemberError(archive, wanted);
}

function channelsOf({ name }: ZipMember, byName: ReadonlyMap<string, ZipMember>): ZipMember[] {
  const channels: ZipMember[] = [];
  for (;;) {
    const channel = byName.get(`${name}.${channels.length}`);
    if (channel === undefined) return channels;
    channels.push(channel);
  }
}

/** Opens a member of the archive `source` by its name. Closing the result closes the archive. @throws MemberError */
export async function openMember(source: ByteSource, name: string): Promise<ByteSource> {
  const archive = await readZip(source);
  const { member, inside } = chooseMember(archive, name);
  if (inside !== undefined) throw new MemberError(archive, name);
  return closingBoth(await openZipMember(archive, member), source);
}

/** Returns a source that also closes `outer` when it is closed. */
export function closingBoth(source: ByteSource, outer: ByteSource): ByteSource {
  return {
    name: source.name,
    ...(source.coordinate === undefined ? {} : { coordinate: source.coordinate }),
    size: source.size,
    read: (target, position) => source.read(target, position),
    ...announcements(source),
    async close() {
      await source.close();
      await outer.close();
    },
  };
}
