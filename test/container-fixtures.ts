/**
 * The files in test/fixtures/containers: streams in save images by real libvirt and in qcow2 snapshots by real QEMU.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { hasProgram } from './oracle/containers.ts';

export interface ContainerFixture {
  name: string;
  bytes: Uint8Array;
  streams: { snapshot?: string; truth: { idstr: string; length: number; sha256: string }[] }[];
}

const folder = fileURLToPath(new URL('./fixtures/containers/', import.meta.url));

/** Programs that fixtures need besides node:zlib. */
const needed: Record<string, string> = {
  'libvirt-bzip2': 'bzip2',
  'libvirt-xz': 'xz',
  'libvirt-lzop': 'lzop',
  'libvirt-zstd': 'zstd',
  'qcow2-zstd': 'zstd',
};

/** All of them except those whose program is missing; prints which. */
export function loadContainerFixtures(): ContainerFixture[] {
  const files = readdirSync(folder);
  const names = files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -'.json'.length));
  return names.flatMap((name) => {
    const program = needed[name];
    if (program !== undefined && !hasProgram(program)) {
      console.warn(`skipped: ${name}: the program ${program} is not installed`);
      return [];
    }
    return [loadContainerFixture(name)];
  });
}

export function loadContainerFixture(name: string): ContainerFixture {
  const { streams } = JSON.parse(readFileSync(`${folder}${name}.json`, 'utf8'));
  const isPacked = readdirSync(folder).includes(`${name}.bin.gz`);
  const content = readFileSync(`${folder}${name}.bin${isPacked ? '.gz' : ''}`);
  return { name, bytes: new Uint8Array(isPacked ? gunzipSync(content) : content), streams };
}
