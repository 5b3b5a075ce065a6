/** Who may connect: QEMU's authz objects, which are asked about the distinguished name of a client's certificate. */
import { readFileSync } from 'node:fs';
import { ObjectProperties } from './object-spec.ts';
import { localError } from './system-text.ts';

/** Decides about an identity. */
export type Authz = (identity: string) => boolean;

type Policy = 'allow' | 'deny';
const policies: readonly Policy[] = ['deny', 'allow'];
const formats = ['exact', 'glob'] as const;

/** `authz-simple`: one identity. */
export function authzSimple(properties: ObjectProperties): Authz {
  const identity = properties.string('identity');
  if (identity === undefined) throw new RangeError(`Parameter 'identity' is missing`);
  return (each) => each === identity;
}

/** `authz-list`: the first rule that matches decides, and without one the policy. */
export function authzList(properties: ObjectProperties): Authz {
  const fallback = properties.choice('policy', policies) ?? 'deny';
  const rules = (properties.list('rules') ?? []).map((rule, index) => {
    const match = rule.string('match');
    const policy = rule.choice('policy', policies);
    const format = rule.choice('format', formats) ?? 'exact';
    if (match === undefined) throw new RangeError(`Parameter 'rules[${index}].match' is missing`);
    if (policy === undefined) throw new RangeError(`Parameter 'rules[${index}].policy' is missing`);
    rule.end();
    return { policy, matches: format === 'exact' ? (each: string) => each === match : globMatcher(match) };
  });
  return (identity) => (rules.find(({ matches }) => matches(identity))?.policy ?? fallback) === 'allow';
}

/** `authz-list-file`: a list in a JSON file. With `refresh`, which is on by default, it is read each time. */
export function authzListFile(properties: ObjectProperties): Authz {
  const filename = properties.string('filename');
  const refresh = properties.boolean('refresh') ?? true;
  if (filename === undefined) throw new RangeError(`Parameter 'filename' is missing`);
  const first = readList(filename);
  if (!refresh) return first;
  return (identity) => {
    try {
      return readList(filename)(identity);
    } catch {
      // As long as the file cannot be used, nobody is let in.
      return false;
    }
  };
}

function readList(filename: string): Authz {
  let text: string;
  try {
    text = readFileSync(filename, 'utf8');
  } catch (error) {
    throw localError(`Unable to read '${filename}'`, error);
  }
  const properties = new ObjectProperties(JSON.parse(text));
  const list = authzList(properties);
  properties.end();
  return list;
}

/** Matches as the C library's fnmatch does: `*`, `?` and `[…]`. */
function globMatcher(glob: string): (text: string) => boolean {
  const pattern = glob.replace(/\\.|\[(!?)((?:\][^\]]*|[^\]]+))\]|[\s\S]/g, (part, negated?: string, set?: string) => {
    if (set !== undefined) return `[${negated ? '^' : ''}${set.replace(/[\\\]^]/g, '\\$&')}]`;
    if (part === '*') return '[\\s\\S]*';
    if (part === '?') return '[\\s\\S]';
    return (part.length > 1 ? part.slice(1) : part).replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
  });
  const regExp = new RegExp(`^${pattern}$`);
  return (text) => regExp.test(text);
}
