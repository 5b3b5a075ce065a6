/** A worker that measures pages in shared memory, for `page-lookers.ts`. */
import { entropyBytes } from './entropy-bytes.ts';
import type { LookRequest } from './page-lookers.ts';

self.addEventListener('message', ({ data, ports: [port] }: MessageEvent<LookRequest>) => {
  const { memory, offset, length, pageSize } = data;
  port?.postMessage(entropyBytes(new Uint8Array(memory, offset, length), pageSize));
});
