/**
 * The page exists twice. index.html can fetch only from its own server, so that nothing can leave the browser. remote.html is the
 * same page with another policy (vite.config.ts builds it), and can fetch files from any server that allows it.
 */

/** Whether this is the page that can fetch from other servers. */
export const isRemotePage = document.documentElement.dataset.page === 'remote';

/** Whether a URL is on another server and this page must not fetch from there. */
export const isOutOfReach = (url: string): boolean => !isRemotePage && new URL(url).origin !== location.origin;

/** The address of the other page, which opens the URL at once. */
export const remotePageFor = (url: string): string => `./remote.html#${encodeURIComponent(url)}`;

/** The URL in the address of this page, encoded or as it is. Undefined if there is none. */
export function wantedUrl(): string | undefined {
  if (location.hash.length < 2) return undefined;
  try {
    const url = decodeURIComponent(location.hash.slice(1));
    return /^https?:/.test(new URL(url).protocol) ? url : undefined;
  } catch {
    return undefined;
  }
}
