/** How the command line prints JSON: an object that begins with the version of its shape. */
import { jsonReplacer, jsonVersion, type VersionedJson } from '../tasks/json.ts';

/** What `jsonReplacer` turns into a `Json`: bytes and bigints become text, undefined becomes null. */
export type Printable<Json> = Json extends null
  ? null | undefined
  : Json extends string
    ? Json | (string extends Json ? Uint8Array | bigint : never)
    : Json extends readonly (infer Element)[]
      ? readonly Printable<Element>[]
      : Json extends object
        ? { [Key in keyof Json]: Printable<Required<Json>[Key]> }
        : Json;

/** What prints as a `Json`, without the version, which is added when it is printed. */
export type Unversioned<Json extends VersionedJson> = {
  [Key in keyof Json as Exclude<Key, 'jsonVersion'>]: Printable<Required<Json>[Key]>;
};

/** On several lines. */
export function toJson<Json extends VersionedJson>(facts: Unversioned<Json>): string {
  return `${JSON.stringify({ jsonVersion, ...facts }, jsonReplacer, 2)}\n`;
}

/** On one line. A search prints millions of them, so these facts are JSON already: a replacer costs time. */
export function toJsonLine<Json extends VersionedJson>(facts: Omit<Json, 'jsonVersion'>): string {
  return `${JSON.stringify({ jsonVersion, ...facts })}\n`;
}
