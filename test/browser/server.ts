/** A web server on the loopback interface for the built package, a page that loads it, and captures. */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const page =
  '<!doctype html><meta charset="utf-8"><title>vmferry</title><script type="module" src="/page.mjs"></script>';

export interface PageServer {
  origin: string;
  close(): Promise<void>;
}

/** Serves captures by name under /captures/, and scripts by their path. */
export async function servePage(
  captures: ReadonlyMap<string, Uint8Array>,
  scripts: ReadonlyMap<string, string> = new Map(),
): Promise<PageServer> {
  const server = createServer(({ url = '/' }, response) => {
    const respond = (type: string, body: Uint8Array | string) => {
      response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store' }).end(body);
    };
    const script = scripts.get(url);
    const capture = captures.get(url.replace(/^\/captures\//, ''));
    if (url === '/') respond('text/html', page);
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
