/**
 * What a stream has in it by its machine type and by the version of QEMU that writes it (docs/formats/stream.md, "Writing
 * one"; docs/formats/multifd.md, "Writing them"). Source and destination go by the same machine type, so the newer of two
 * versions does as the older one did.
 *
 *     from machine types of   8.1   multifd channels meet once in a round, at a MULTIFD_FLUSH; before, after each section
 *                             9.0   zero pages are listed in multifd packets; before, they are records of the main stream
 *                             10.0  SWITCHOVER_START
 */

/** A version of QEMU whose streams can be asked for. */
export type StreamVersion = (typeof streamVersions)[number];
export const streamVersions = ['7.2', '9.0', '10.0'] as const;

export interface StreamRules {
  /** SWITCHOVER_START comes before the ENDs. */
  switchoverStart: boolean;
  /**
   * Where the marks of the multifd channels are: every EOS of `ram`, or records MULTIFD_FLUSH. They must be where the
   * destination looks for them: QEMU 10.0 with rounds loads a set with marks in sections without its pages, and says nothing.
   */
  multifdMarks: 'section' | 'round';
  /** Where zero pages of a multifd migration go: into packets, or as ZERO records into the main stream. */
  zeroPages: 'packets' | 'records';
  /** A multifd packet with a SYNC alone says that it has room for pages, as one with pages does. */
  roomInSync: boolean;
}

/** A version as a number that can be compared: 10.0 is 1000, 8.1 is 801. */
type Release = number;
const release = (major: string, minor: string): Release => Number(major) * 100 + Number(minor);

/** QEMU has machine types such as pc-i440fx-10.0. Those of distributions (pc-q35-rhel9.2.0) say nothing of QEMU's version. */
function releaseOf(machine: string): Release | undefined {
  const match = /-(\d{1,3})\.(\d{1,2})$/.exec(machine);
  return match === null ? undefined : release(match[1] as string, match[2] as string);
}

/** Whether a machine type says which version's rules hold. */
export const saysVersion = (machine: string): boolean => releaseOf(machine) !== undefined;

/**
 * The rules for a machine, as its configuration names it. Where that says no version (`none`, those of distributions), the
 * newest ones hold if no version is given, but for SWITCHOVER_START, which earlier versions refuse.
 * @throws RangeError for a version that there is not here, or that does not have that machine type.
 */
export function streamRulesOf(machine: string | undefined, version?: StreamVersion): StreamRules {
  if (version !== undefined && !streamVersions.includes(version)) {
    throw new RangeError(`expected a version of ${streamVersions.join(', ')}, got ${version}`);
  }
  const given = version === undefined ? undefined : release(...(version.split('.') as [string, string]));
  const ofMachine = releaseOf(machine ?? '');
  if (given !== undefined && ofMachine !== undefined && ofMachine > given) {
    throw new RangeError(`QEMU ${version} has no machine type ${machine}: its streams cannot have that`);
  }
  const known = ofMachine ?? given;
  const least = known ?? Number.POSITIVE_INFINITY;
  return {
    switchoverStart: known !== undefined && known >= 1000,
    multifdMarks: least >= 801 ? 'round' : 'section',
    zeroPages: least >= 900 ? 'packets' : 'records',
    roomInSync: (given ?? least) < 1000,
  };
}
