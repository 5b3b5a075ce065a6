/**
 * What a stream contains depends on the machine type and on the version of QEMU that writes it (docs/formats/stream.md,
 * "Writing one"; docs/formats/multifd.md, "Writing them"). Source and destination use the same machine type, so the newer
 * of two versions does what the older one did.
 *
 *     from machine types of   8.1   multifd channels meet once in a round, at a MULTIFD_FLUSH; earlier, after each section
 *                             9.0   zero pages are listed in multifd packets; earlier, they are records of the main stream
 *                             10.0  SWITCHOVER_START
 */
import { releaseNumber, releaseOf } from './release.ts';

/** A version of QEMU to write streams for. */
export type ReleaseName = (typeof releaseNames)[number];
/** All of them. */
export const releaseNames = ['7.2', '9.0', '10.0'] as const;

/** What a stream contains for one machine type and version. */
export interface ReleaseRules {
  /** SWITCHOVER_START comes before the ENDs. */
  switchoverStart: boolean;
  /**
   * Where the marks of the multifd channels are: at every EOS of `ram`, or at records MULTIFD_FLUSH. They must be where the
   * destination expects them. QEMU 10.0 expects rounds; it loads a set with marks in sections without the pages, silently.
   */
  multifdMarks: 'section' | 'round';
  /** Where zero pages of a multifd migration are: in packets, or as ZERO records in the main stream. */
  zeroPages: 'packets' | 'records';
  /** A multifd packet that has only a SYNC states the same capacity for pages as one with pages. */
  pagesAllocatedInSync: boolean;
}

/**
 * The rules for a machine type, as the configuration names it. A machine type may name no version (`none`, those of
 * distributions). If no version is given either, the newest rules apply, without SWITCHOVER_START, which older versions
 * refuse.
 * @throws RangeError for an unknown version, or one that does not have that machine type.
 */
export function releaseRulesOf(machine: string | undefined, version?: ReleaseName): ReleaseRules {
  if (version !== undefined && !releaseNames.includes(version)) {
    throw new RangeError(`expected a version of ${releaseNames.join(', ')}, got ${version}`);
  }
  const given = version === undefined ? undefined : releaseNumber(...(version.split('.') as [string, string]));
  const ofMachine = releaseOf(machine ?? '');
  if (given !== undefined && ofMachine !== undefined && ofMachine > given) {
    throw new RangeError(`QEMU ${version} does not have the machine type ${machine}`);
  }
  const known = ofMachine ?? given;
  const least = known ?? Number.POSITIVE_INFINITY;
  return {
    switchoverStart: known !== undefined && known >= 1000,
    multifdMarks: least >= 801 ? 'round' : 'section',
    zeroPages: least >= 900 ? 'packets' : 'records',
    pagesAllocatedInSync: (given ?? least) < 1000,
  };
}
