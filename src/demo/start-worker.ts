/**
 * Starts workers with the policy of the page (index.html). A worker that is fetched has the policy that the server sends with it,
 * and most servers send none. A worker from a blob inherits the policy of the page or worker that starts it.
 */
export function startWorker(script: string, name: string): Worker {
  const { href } = new URL(script, import.meta.url);
  const blob = new Blob([`import ${JSON.stringify(href)};`], { type: 'text/javascript' });
  const url = URL.createObjectURL(blob);
  const worker = new Worker(url, { type: 'module', name });
  // By then, the worker has loaded its script.
  worker.addEventListener('message', () => URL.revokeObjectURL(url), { once: true });
  return worker;
}
