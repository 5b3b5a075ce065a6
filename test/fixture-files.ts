/** The captures in test/fixtures: small, made by real QEMU (test/qemu/make-fixtures.test.ts). */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

export interface Fixture {
  name: string;
  path: string;
  bytes: Uint8Array;
  /** Of a multifd migration, what came through its channels, in the order they were made. */
  channels: Uint8Array[];
  /** Where the stream begins. */
  offset: number;
  /** Of the stopped source's RAM, block by block. */
  truth: { idstr: string; length: number; sha256: string }[];
}

const folder = fileURLToPath(new URL('./fixtures/', import.meta.url));

export function fixturePath(file: string): string {
  return folder + file;
}

/** All fixtures, multifd sets among them. */
export function loadFixtures(): Fixture[] {
  const files = readdirSync(folder);
  return files
    .filter((file) => file.endsWith('.json'))
    .map((file) => file.slice(0, -'.json'.length))
    .map((name) => {
      const { offset = 0, truth, channels = [] } = JSON.parse(readFileSync(`${folder}${name}.json`, 'utf8'));
      const file = files.includes(`${name}.bin.gz`) ? `${name}.bin.gz` : `${name}.bin`;
      const ofChannels = channels.map((channel: { file: string }) => readContent(channel.file));
      return { name, path: folder + file, bytes: readContent(file), channels: ofChannels, offset, truth };
    });
}

function readContent(file: string): Uint8Array {
  const content = readFileSync(folder + file);
  return new Uint8Array(file.endsWith('.gz') ? gunzipSync(content) : content);
}
