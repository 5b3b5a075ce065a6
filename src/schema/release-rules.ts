/**
 * What a stream has in it by its machine type and by the version of QEMU that writes it (docs/formats/stream.md, "Writing
 * one"; docs/formats/multifd.md, "Writing them"). Source and destination go by the same machine type, so the newer of two
 * versions does as the older one did.
 *
 *     from machine types of   8.1   multifd channels meet once in a round, at a MULTIFD_FLUSH; before, after each section
 *                             9.0   zero pages are listed in multifd packets; before, they are records of the main stream
 *                             10.0  SWITCHOVER_START
 */
import { releaseNumber, releaseOf } from './release.ts';

/** A version of QEMU whose streams can be asked for. */
export type ReleaseName = (typeof releaseNames)[number];
export const releaseNames = ['7.2', '9.0', '10.0'] as const;

export interface ReleaseRules {
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

/**
 * The rules for a machine, as its configuration names it. Where that says no version (`none`, those of distributions), the
 * newest ones hold if no version is given, but for SWITCHOVER_START, which earlier versions refuse.
 * @throws RangeError for a version that there is not here, or that does not have that machine type.
 */
export function releaseRulesOf(machine: string | undefined, version?: ReleaseName): ReleaseRules {
  if (version !== undefined && !releaseNames.includes(version)) {
    throw new RangeError(`expected a version of ${releaseNames.join(', ')}, got ${version}`);
  }
  const given = version === undefined ? undefined : releaseNumber(...(version.split('.') as [string, string]));
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
