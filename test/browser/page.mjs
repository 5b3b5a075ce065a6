/** Runs in the page: reads a capture with the built package, or writes one, and gives plain values, to be compared with Node's. */
import { appendTo, convertToMultifd, extractBlocks, inspect, MemoryFile, open, verify } from '/dist/index.js';

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

/** Verifies a capture while it is being fetched. */
async function verifyStream(name, options) {
  const { body } = await fetch(`/captures/${name}`);
  const file = await open(body, options);
  const verification = await verify(file);
  await file.close();
  return verification;
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

globalThis.vmferryPage = { examine, verifyStream, writeSet, refusal };
