/**
 * The two pages: index.html may talk to the server that it came from alone, which makes its promise true; remote.html, the
 * same page with another policy (vite.config.ts makes it), may fetch files from any server that allows it.
 */

/** Whether this is the page that may. */
export const isRemotePage = document.documentElement.dataset.page === 'remote';

/** Whether a URL is on another server, which this page may not ask. */
export const isOutOfReach = (url: string): boolean => !isRemotePage && new URL(url).origin !== location.origin;

/** The other page, which opens the URL at once. */
export const remotePageFor = (url: string): string => `./remote.html#${encodeURIComponent(url)}`;

/** What that page is to open; undefined: nothing. */
export function wantedUrl(): string | undefined {
  if (!isRemotePage || location.hash.length < 2) return undefined;
  try {
    const url = decodeURIComponent(location.hash.slice(1));
    return /^https?:/.test(new URL(url).protocol) ? url : undefined;
  } catch {
    return undefined;
  }
}
