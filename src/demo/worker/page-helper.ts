/** The script of a worker that measures pages in shared memory. `page-measurer.ts` starts it. */
import { entropyBytes } from './entropy-bytes.ts';
import type { MeasureRequest } from './page-measurer.ts';

self.addEventListener('message', ({ data, ports: [port] }: MessageEvent<MeasureRequest>) => {
  const { memory, offset, length, pageSize } = data;
  port?.postMessage(entropyBytes(new Uint8Array(memory, offset, length), pageSize));
});

// Says that the script is loaded.
self.postMessage('ready');
