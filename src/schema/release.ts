/** QEMU releases, and the release that a machine type belongs to. */

/** A release as a comparable number: 10.0 is 1000, 8.1 is 801. */
export type Release = number;

/** Makes the number of a release from its two parts. */
export const releaseNumber = (major: string, minor: string): Release => Number(major) * 100 + Number(minor);

/**
 * The release that a versioned machine type such as `pc-i440fx-10.0` names; undefined if it names none. The machine
 * types of distributions (`pc-q35-rhel9.2.0`) do not name QEMU's release.
 */
export function releaseOf(machine: string): Release | undefined {
  const match = /-(\d{1,3})\.(\d{1,2})$/.exec(machine);
  return match === null ? undefined : releaseNumber(match[1] as string, match[2] as string);
}

/** Whether a machine type names the release whose rules it follows. */
export const namesRelease = (machine: string): boolean => releaseOf(machine) !== undefined;
