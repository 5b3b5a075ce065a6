/** The version of all JSON that the commands print. */

/** It increases when a field is removed or changes its meaning, not when one is added. */
export const jsonVersion = 1;

/** The first member of every JSON object. */
export interface VersionedJson {
  jsonVersion: typeof jsonVersion;
}
