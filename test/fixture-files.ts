/** The captures in test/fixtures: small, made by real QEMU (test/qemu/make-fixtures.test.ts). */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

export interface Fixture {
  name: string;
  path: string;
  bytes: Uint8Array;
  /** The data of each channel of a multifd migration, in the order of their creation. */
  channels: Uint8Array[];
  /** Offset at which the stream begins. */
  offset: number;
  /** RAM of the stopped source, block by block. */
  truth: { idstr: string; length: number; sha256: string }[];
  /** QEMU's own dump of the guest. */
  core?: { length: number; sha256: string };
}

/** A migration in several files. */
export interface PartedFixture extends Fixture {
  resumeOf: Uint8Array[];
  preempt: Uint8Array[];
  returnPath: Uint8Array[];
  /** The same files, as paths. */
  paths: { resumeOf: string[]; preempt: string[]; returnPath: string[] };
}

const folder = fileURLToPath(new URL('./fixtures/', import.meta.url));

export function fixturePath(file: string): string {
  return folder + file;
}

/** The names of the fixtures, with their JSON. */
function listFixtures(): { name: string; about: Record<string, unknown> & Pick<Fixture, 'truth'> }[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .map((file) => ({ name: file.slice(0, -'.json'.length), about: JSON.parse(readFileSync(folder + file, 'utf8')) }));
}

/** All fixtures that are one stream, including multifd sets; without their return paths. */
export function loadFixtures(): Fixture[] {
  const files = readdirSync(folder);
  return listFixtures()
    .filter(({ about }) => about.preempt === undefined)
    .map(({ name, about: { offset = 0, truth, channels = [], core } }) => {
      const file = files.includes(`${name}.bin.gz`) ? `${name}.bin.gz` : `${name}.bin`;
      const ofChannels = (channels as { file: string }[]).map((channel) => readContent(channel.file));
      return {
        name,
        path: folder + file,
        bytes: readContent(file),
        channels: ofChannels,
        offset: offset as number,
        truth,
        ...(core === undefined ? {} : { core: core as NonNullable<Fixture['core']> }),
      };
    });
}

/** The fixtures that are migrations in several files. */
export function loadPartedFixtures(): PartedFixture[] {
  return listFixtures()
    .filter(({ about }) => about.preempt !== undefined)
    .map(({ name, about }) => {
      const { resumeOf, preempt, returnPath, truth } = about as typeof about & PartedFixture['paths'];
      const pathsOf = (list: string[]) => list.map((file) => folder + file);
      return {
        name,
        path: `${folder}${name}.bin`,
        bytes: readContent(`${name}.bin`),
        channels: [],
        offset: 0,
        truth,
        resumeOf: resumeOf.map(readContent),
        preempt: preempt.map(readContent),
        returnPath: returnPath.map(readContent),
        paths: { resumeOf: pathsOf(resumeOf), preempt: pathsOf(preempt), returnPath: pathsOf(returnPath) },
      };
    });
}

function readContent(file: string): Uint8Array {
  const content = readFileSync(folder + file);
  return new Uint8Array(file.endsWith('.gz') ? gunzipSync(content) : content);
}
