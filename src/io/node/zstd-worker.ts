/** The script of a thread that compresses zstd (`zstd-threads.ts`). One packet at a time comes and goes in shared memory. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { PortableCodecs } from '../portable-codecs.ts';
import type { ZstdJob, ZstdResult } from './zstd-threads.ts';

const port = parentPort as MessagePort;
const codecs = new PortableCodecs();

port.on('message', async ({ shared, length, level }: ZstdJob) => {
  let result: ZstdResult;
  try {
    const encoder = await codecs.openEncoder('zstd', level);
    const bytes = new Uint8Array(shared);
    // The context stays for the next packet: encoders are not closed here, and end with the thread.
    result = { length: await encoder.encode(bytes.subarray(0, length), bytes.subarray(length)) };
  } catch (error) {
    result = { error: (error as Error).message };
  }
  port.postMessage(result);
});
