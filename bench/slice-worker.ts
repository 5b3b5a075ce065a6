/** Reads a file with nothing but `slice`, as much at a time as the library does: what opening is held against. */
const pieceBytes = 1 << 20;

self.addEventListener('message', async ({ data: file }: MessageEvent<File>) => {
  for (let at = 0; at < file.size; at += pieceBytes) await file.slice(at, at + pieceBytes).arrayBuffer();
  self.postMessage('done');
});
