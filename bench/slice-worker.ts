/** Reads a file by `slice` alone, in pieces of the library's size: the baseline for opening a file. */
const pieceBytes = 1 << 20;

self.addEventListener('message', async ({ data: file }: MessageEvent<File>) => {
  for (let at = 0; at < file.size; at += pieceBytes) await file.slice(at, at + pieceBytes).arrayBuffer();
  self.postMessage('done');
});
