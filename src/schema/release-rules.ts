/**
 * What a stream contains depends on the machine type and on the version of QEMU that writes it (docs/formats/stream.md,
 * "Writing one"; docs/formats/multifd.md, "Writing them"). Source and destination use the same machine type, so a newer
 * version follows the rules of the older one.
 *
 *     from machine types of   8.0   the preempt channel opens when postcopy begins; earlier, before RAM, and it ends with an EOS
 *                             8.1   multifd channels meet once in a round, at a MULTIFD_FLUSH; earlier, after each section
 *                             9.0   zero pages are listed in multifd packets; earlier, they are records of the main stream
 *                             10.0  SWITCHOVER_START
 */
import { releaseNumber, releaseOf } from './release.ts';

/** A version of QEMU that streams can be written for. */
export type ReleaseName = (typeof releaseNames)[number];
/** All releases that streams can be written for. */
export const releaseNames = ['7.2', '9.0', '10.0'] as const;

/** What a stream contains for one machine type and version. */
export interface ReleaseRules {
  /** SWITCHOVER_START comes before the ENDs. */
  switchoverStart: boolean;
  /**
   * Where the marks of the multifd channels are: at every EOS of `ram`, or at MULTIFD_FLUSH records. They must be where
   * the destination expects them. If QEMU 10.0 expects rounds, it loads a set with marks in sections without an error,
   * but without the pages.
   */
  multifdMarks: 'section' | 'round';
  /** Where the zero pages of a multifd migration are: in packets, or as ZERO records in the main stream. */
  zeroPages: 'packets' | 'records';
  /** The preempt channel of postcopy is opened before RAM, and ends with an EOS. */
  preemptFirst: boolean;
  /** A packet with only a SYNC states the same capacity for pages as a packet with pages. */
  pagesAllocatedInSync: boolean;
}

/**
 * The rules for a machine type, by its name in the configuration. Some machine types name no version (`none`, those of
 * distributions). If `version` is not given either, the newest rules apply, without SWITCHOVER_START, which older
 * versions refuse.
 * @throws RangeError for an unknown version, or a version without that machine type.
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
    preemptFirst: least < 800,
    pagesAllocatedInSync: (given ?? least) < 1000,
  };
}
