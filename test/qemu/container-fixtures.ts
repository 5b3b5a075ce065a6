/** Writes test/fixtures/containers: NAME.bin, gzipped if it is sparse, and NAME.json beside it. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type { Truth } from './truth.ts';

const folder = fileURLToPath(new URL('../fixtures/containers/', import.meta.url));
const maxBytes = 1 << 20;

type Hashes = { idstr: string; length: number; sha256: string }[];

export interface ContainerAbout {
  madeBy: string;
  /** The streams in the file: one, or one per snapshot. */
  streams: { snapshot?: string; truth: Truth | Hashes }[];
  [fact: string]: unknown;
}

export function writeContainerFixture(name: string, bytes: Uint8Array, about: ContainerAbout): void {
  mkdirSync(folder, { recursive: true });
  const sha256 = (content: Uint8Array) => createHash('sha256').update(content).digest('hex');
  const packed = gzipSync(bytes, { level: 9 });
  const isSparse = packed.length * 4 < bytes.length;
  const content = isSparse ? packed : bytes;
  if (content.length > maxBytes) throw new Error(`${name} has ${content.length} bytes`);
  writeFileSync(`${folder}${name}.bin${isSparse ? '.gz' : ''}`, content);
  const streams = about.streams.map(({ truth, ...stream }) => ({
    ...stream,
    truth: Array.isArray(truth)
      ? truth
      : [...truth].map(([idstr, { path, length }]) => ({ idstr, length, sha256: sha256(readFileSync(path)) })),
  }));
  const json = { ...about, length: bytes.length, sha256: sha256(bytes), streams };
  writeFileSync(`${folder}${name}.json`, `${JSON.stringify(json, null, 2)}\n`);
}
