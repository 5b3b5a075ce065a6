/**
 * Names of inputs on a command line: paths and URLs, followed by an offset, or by the name of a snapshot or of an
 * archive's member.
 */
import { parseSize } from './units.ts';

/**
 * Splits `PATH,offset=N` as QEMU's `file:` addresses do. N is a size: decimal or 0x hex, with an optional unit, such as
 * 4K or 1MiB.
 * @throws RangeError for an offset that begins with a digit but is malformed, or is beyond 2^53 - 1.
 */
export function parseLocation(location: string): { path: string; offset: number | undefined } {
  const [, path, text] = /^(.+),offset=(\d[^,/]*)$/i.exec(location) ?? [];
  if (path === undefined || text === undefined) return { path: location, offset: undefined };
  return { path, offset: parseSize(text) };
}

/** @throws RangeError for a channel, or another part of a migration, that was named with an offset */
export function requireWhole({ offset }: { offset?: number | undefined }): void {
  if (offset === undefined) return;
  throw new RangeError(
    `expected an offset only for the file itself, got a channel or another part at offset ${offset}`,
  );
}

/** Splits `FILE#INSIDE` where `FILE` exists, as `isFile` says. A path that exists as a whole is not split. */
export function splitInside(
  path: string,
  isFile: (path: string) => boolean,
): { path: string; inside: string | undefined } {
  if (!path.includes('#') || isFile(path)) return { path, inside: undefined };
  for (let at = path.lastIndexOf('#'); at > 0; at = path.lastIndexOf('#', at - 1)) {
    const file = path.slice(0, at);
    if (isFile(file)) return { path: file, inside: path.slice(at + 1) };
  }
  return { path, inside: undefined };
}

/**
 * Splits a URL from the offset, or the name of a snapshot or a member, that follows it.
 * @throws TypeError for a URL that is not valid
 */
export function splitUrl(location: string): { url: string; inside: string | undefined; offset: number | undefined } {
  const { path, offset } = parseLocation(location);
  const url = new URL(path);
  const inside = url.hash === '' ? undefined : decodeFragment(url.hash.slice(1));
  url.hash = '';
  return { url: url.href, inside, offset };
}

/** The text of a fragment; one with a lone % is taken as it is. */
function decodeFragment(fragment: string): string {
  try {
    return decodeURIComponent(fragment);
  } catch {
    return fragment;
  }
}
