/**
 * Starts workers so that the page's policy (index.html) holds for them, too: a worker that comes from the web server has the
 * policy that the server sends with it, which is none on a plain one; one that comes from a blob has its maker's.
 */
export function startWorker(script: string, name: string): Worker {
  const { href } = new URL(script, import.meta.url);
  const blob = new Blob([`import ${JSON.stringify(href)};`], { type: 'text/javascript' });
  const url = URL.createObjectURL(blob);
  const worker = new Worker(url, { type: 'module', name });
  // The worker has its script by then.
  worker.addEventListener('message', () => URL.revokeObjectURL(url), { once: true });
  return worker;
}
