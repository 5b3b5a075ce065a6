/** Runs in the page: reads a capture with the built package, or writes one, and gives plain values, to be compared with Node's. */
import {
  appendTo,
  convertToMultifd,
  extractBlocks,
  inspect,
  MemoryFile,
  open,
  PortableCodecs,
  verify,
  ZipWriter,
} from '/dist/index.js';
import { connectStreams, Incoming, listenOn, receive, sendFile } from '/dist/migrate.js';

async function sha256(file) {
  const bytes = new Uint8Array(file.size);
  file.read(bytes, 0);
  const digest = await crypto.subtle.digest('SHA-256', bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Everything the package says of a source that can be read again. */
async function examine(name, { channelCount = 0, ...options }) {
  const get = async (path) => (await fetch(`/captures/${path}`)).blob();
  const channels = [];
  for (let i = 0; i < channelCount; i++) channels.push(await get(`${name}.channel-${i}`));
  const file = await open(await get(name), { ...options, channels });
  const { inspection } = await inspect(file);
  const verification = await verify(file);
  const files = new Map();
  const extracted = await extractBlocks(file, ({ idstr }) => {
    files.set(idstr, new MemoryFile(idstr));
    return files.get(idstr);
  });
  const digests = {};
  for (const [idstr, image] of files) digests[idstr] = await sha256(image);
  const { variant } = file.kernel;
  await file.close();
  return { inspection, verification, extracted, digests, variant };
}

const portableCodecs = new PortableCodecs();

/** A line over a MessagePort. */
function lineOver(port) {
  const readable = new ReadableStream({
    start(controller) {
      port.onmessage = ({ data }) => (data === undefined ? controller.close() : controller.enqueue(data));
    },
    cancel() {
      port.onmessage = null;
    },
  });
  const writable = new WritableStream({
    write: (chunk) => port.postMessage(chunk),
    close: () => port.postMessage(undefined),
  });
  return connectStreams({ readable, writable }, 'a port');
}

/** Receives a guest from another page, and returns the digest of the file. */
async function receiveOver(ports) {
  const file = new MemoryFile('arrived');
  const incoming = new Incoming(listenOn(ports.map(lineOver)));
  const { confirmed, found } = await receive(
    incoming,
    { file, commit: async () => {} },
    { codecs: portableCodecs, mostChannels: 4 },
  );
  return { confirmed, channels: found.channels, digest: await sha256(file) };
}

/** Sends a capture to another page over MessageChannels. */
async function sendToOtherPage(name, channelCount) {
  const other = document.createElement('iframe');
  other.src = location.href;
  const loaded = new Promise((resolve) => addEventListener('message', resolve, { once: true }));
  document.body.append(other);
  await loaded;
  const lines = Array.from({ length: channelCount + 1 }, () => new MessageChannel());
  const arrived = new Promise((resolve) => addEventListener('message', ({ data }) => resolve(data), { once: true }));
  const ports = lines.map(({ port2 }) => port2);
  other.contentWindow.postMessage('receive', location.origin, ports);
  const file = await open(await (await fetch(`/captures/${name}`)).blob());
  const here = lines.map(({ port1 }) => lineOver(port1));
  const { isConfirmed } = await sendFile(file, async () => here.shift(), {
    makeScratch: () => new MemoryFile(),
    ...(channelCount === 0 ? {} : { multifd: { channels: channelCount, compression: 'zlib', codecs: portableCodecs } }),
  });
  const there = await arrived;
  other.remove();
  return { isConfirmed, there };
}

if (parent !== window) {
  addEventListener('message', async ({ ports }) => parent.postMessage(await receiveOver(ports), location.origin));
  parent.postMessage('loaded', location.origin);
}

/** Verifies a capture while it is being fetched. */
async function verifyStream(name, options) {
  const { body } = await fetch(`/captures/${name}`);
  const file = await open(body, options);
  const verification = await verify(file);
  await file.close();
  return verification;
}

/** Verifies and inspects a capture in each form that a page may have it in. A zip archive in a stream is copied first. */
async function forms(name, options) {
  const url = new URL(`/captures/${name}`, location.href);
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
  async function* generate(from = bytes) {
    for (let at = 0; at < from.length; at += 10_001) yield from.subarray(at, at + 10_001);
  }
  const zipped = new MemoryFile();
  const zip = new ZipWriter(appendTo(zipped));
  await zip.add('guest', new MemoryFile('guest', bytes), { level: 1 });
  await zip.end();
  const archive = new Uint8Array(zipped.size);
  zipped.read(archive, 0);
  const inputs = {
    'a URL': url.href,
    'a URL object': url,
    'a Blob': new Blob([bytes]),
    'a File': new File([bytes], 'guest'),
    'an ArrayBuffer': bytes.slice().buffer,
    'a DataView': new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    'a FileSystemFileHandle': { getFile: async () => new File([bytes], 'guest') },
    'a Response': await fetch(url),
    'a ReadableStream': (await fetch(url)).body,
    'an async generator': generate(),
    'a zip archive in a ReadableStream': new Blob([archive]).stream(),
  };
  const results = {};
  for (const [form, input] of Object.entries(inputs)) {
    const file = await open(input, { ...options, spool: 'always' });
    const { inspection } = await inspect(file);
    const { ok } = await verify(file);
    results[form] = [ok, inspection.complete, inspection.ram.blocks];
    await file.close();
  }
  return results;
}

/** Writes a multifd set of a capture, checks it, and gives the digests of its files. */
async function writeSet(name, compression) {
  const file = await open(await (await fetch(`/captures/${name}`)).blob());
  const files = ['main', '0', '1'].map((each) => new MemoryFile(each));
  const [main, ...sinks] = files.map((each) => appendTo(each));
  const makeScratch = () => new MemoryFile();
  const conversion = await convertToMultifd(file, main, sinks, { compression, makeScratch });
  await conversion.check(await open(files[0], { channels: files.slice(1) }));
  await conversion.close();
  return Promise.all(files.map(sha256));
}

/** The name and code of the error for bytes that are not capture. */
async function refusal(bytes) {
  try {
    const file = await open(new Blob([new Uint8Array(bytes)]));
    for await (const _ of file.flow());
    return undefined;
  } catch ({ name, code, message }) {
    return { name, code, message };
  }
}

globalThis.vmferryPage = { examine, verifyStream, forms, writeSet, refusal, sendToOtherPage };
