/**
 * A plain web server on the loopback interface: a folder under a sub-path, and files beside it. Answers range requests.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';

const types: Record<string, string> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain',
};

const isolation = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

export interface FolderServer {
  /** URL of the page, with a slash at the end. */
  page: string;
  /** The requests, in order. */
  requests: { path: string; range: string | undefined }[];
  close(): Promise<void>;
}

export interface FolderOptions {
  isIsolated?: boolean;
  /** Pages of other servers may read the files. */
  allowsOthers?: boolean;
  files?: ReadonlyMap<string, Uint8Array>;
}

/** `files`: by their names under `files/` beside the page. A request for `never` is never answered. */
export async function serveFolder(
  folder: string,
  { isIsolated = false, allowsOthers = false, files = new Map() }: FolderOptions = {},
): Promise<FolderServer> {
  const prefix = '/some/where/';
  const requests: FolderServer['requests'] = [];
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname);
    requests.push({ path, range: request.headers.range });
    // The browser's request before a range request to another origin.
    if (request.method === 'OPTIONS' && allowsOthers) {
      const allowed = { 'access-control-allow-origin': '*', 'access-control-allow-headers': '*' };
      return response.writeHead(204, allowed).end();
    }
    const inside = path.startsWith(prefix) ? normalize(path.slice(prefix.length) || 'index.html') : '..';
    // Stands for a server that takes too long.
    if (inside === 'files/never') return;
    const file = join(folder, inside);
    const given = files.get(inside.replace(/^files\//, ''));
    const body = given ?? (!inside.startsWith('..') && existsSync(file) ? readFileSync(file) : undefined);
    if (body === undefined) return response.writeHead(404).end();
    const headers = {
      'content-type': types[extname(file)] ?? 'application/octet-stream',
      ...(given !== undefined && allowsOthers
        ? { 'access-control-allow-origin': '*', 'access-control-expose-headers': 'content-range' }
        : {}),
      ...(isIsolated ? isolation : {}),
    };
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
    if (from === undefined) {
      return response.writeHead(200, { ...headers, 'accept-ranges': 'bytes', 'content-length': body.length }).end(body);
    }
    const last = Math.min(to === '' ? body.length - 1 : Number(to), body.length - 1);
    const range = {
      'content-range': `bytes ${from}-${last}/${body.length}`,
      'content-length': last - Number(from) + 1,
    };
    return response.writeHead(206, { ...headers, ...range }).end(body.subarray(Number(from), last + 1));
  };
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    page: `http://127.0.0.1:${port}${prefix}`,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
