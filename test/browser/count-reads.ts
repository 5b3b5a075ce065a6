/** A script that runs before a worker's own. It notes the bytes of Blobs that the worker reads, for whoever asks on a channel. */
export const countReads = `{
  const reads = [];
  const places = new WeakMap();
  const placeOf = (blob) => places.get(blob) ?? { file: blob.name ?? '', base: 0 };
  const note = (blob, at, length) => {
    const { file, base } = placeOf(blob);
    if (length > 0) reads.push([file, base + at, base + at + length]);
  };
  const { slice, arrayBuffer, stream } = Blob.prototype;
  Blob.prototype.slice = function (start = 0, end = this.size) {
    const { file, base } = placeOf(this);
    const piece = slice.call(this, start, end);
    places.set(piece, { file, base: base + Math.min(start, this.size) });
    return piece;
  };
  Blob.prototype.arrayBuffer = async function () {
    const bytes = await arrayBuffer.call(this);
    note(this, 0, bytes.byteLength);
    return bytes;
  };
  Blob.prototype.stream = function () {
    const whole = stream.call(this);
    const getReader = whole.getReader.bind(whole);
    whole.getReader = (options) => {
      const reader = getReader(options);
      const read = reader.read.bind(reader);
      let at = 0;
      reader.read = async (...views) => {
        const result = await read(...views);
        note(this, at, result.value?.length ?? 0);
        at += result.value?.length ?? 0;
        return result;
      };
      return reader;
    };
    return whole;
  };
  const channel = new BroadcastChannel('reads');
  channel.onmessage = ({ data }) => {
    if (data === 'ask') channel.postMessage(reads.splice(0));
  };
}`;
