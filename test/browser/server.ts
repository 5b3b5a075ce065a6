/** A web server on the loopback interface for the built package, a page that loads it, and captures. */
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const page =
  '<!doctype html><meta charset="utf-8"><title>vmferry</title><script type="module" src="/page.mjs"></script>';

export interface PageServer {
  origin: string;
  close(): Promise<void>;
}

export interface ServeOptions {
  /** The page's HTML, if it is not the page that loads page.mjs. */
  html?: string;
  /** Paths of files on disk. They are served under /files/ by their names, with range requests. */
  files?: ReadonlyMap<string, string>;
  /** Isolates the page from other origins, so that it may share memory. */
  isolated?: boolean;
}

const isolation = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

/** Serves captures by name under /captures/, and scripts by their path. */
export async function servePage(
  captures: ReadonlyMap<string, Uint8Array>,
  scripts: ReadonlyMap<string, string> = new Map(),
  { html = page, files = new Map(), isolated = false }: ServeOptions = {},
): Promise<PageServer> {
  const server = createServer((request, response) => {
    const { url = '/' } = request;
    const respond = (type: string, body: Uint8Array | string) => {
      const more = isolated ? isolation : {};
      response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store', ...more }).end(body);
    };
    const path = files.get(url.replace(/^\/files\//, ''));
    const script = scripts.get(url);
    const capture = captures.get(url.replace(/^\/captures\//, ''));
    if (url === '/') respond('text/html', html);
    else if (path !== undefined) respondRange(request, response, path);
    else if (script !== undefined) respond('text/javascript', script);
    else if (url === '/page.mjs') respond('text/javascript', readFileSync(new URL('./page.mjs', import.meta.url)));
    else if (/^\/dist\/[\w.-]+\.js$/.test(url)) respond('text/javascript', readFileSync(root + url.slice(1)));
    else if (capture !== undefined) respond('application/octet-stream', capture);
    else response.writeHead(url === '/favicon.ico' ? 204 : 404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Sends a whole file, or the requested range. */
function respondRange({ headers }: IncomingMessage, response: ServerResponse, path: string): void {
  const { size } = statSync(path);
  const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '');
  const start = range === null ? 0 : Number(range[1]);
  const end = range === null ? size - 1 : Math.min(size - 1, Number(range[2]));
  const length = { 'content-length': end - start + 1, 'accept-ranges': 'bytes', etag: '"1"' };
  if (range === null) response.writeHead(200, length);
  else response.writeHead(206, { ...length, 'content-range': `bytes ${start}-${end}/${size}` });
  createReadStream(path, { start, end }).pipe(response);
}
