/** How the command line prints JSON: an object that begins with the version of its shape. */
import { type AsJson, jsonVersion, type VersionedJson } from '../tasks/json.ts';

/** A shape without the version, which is added when it is printed. */
export type Unversioned<Json extends VersionedJson> = Json extends unknown ? Omit<Json, 'jsonVersion'> : never;

/** A value as JSON has it: `JSON.stringify` leaves out what is undefined. */
export const withoutUndefined = <Value>(value: Value): AsJson<Value> => value as unknown as AsJson<Value>;

/** On several lines. */
export function toJson<Json extends VersionedJson>(facts: Unversioned<Json>, replacer?: Replacer): string {
  return `${JSON.stringify({ jsonVersion, ...facts }, replacer, 2)}\n`;
}

/** On one line. */
export function toJsonLine<Json extends VersionedJson>(facts: Unversioned<Json>): string {
  return `${JSON.stringify({ jsonVersion, ...facts })}\n`;
}

type Replacer = (key: string, value: unknown) => unknown;
