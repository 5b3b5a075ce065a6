/**
 * Checks every capture: the built command line reads it to its last byte, reports no problem, and extracts every RAM
 * block equal to the stopped source's. Encoding it again gives the same bytes.
 */
import { execFile } from 'node:child_process';
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import type { InspectJson } from '../../src/node.ts';
import { expectChannelAgain, expectMappedAgain, expectStreamAgain, expectStreamsAgain } from '../encode-again.ts';
import { runCli } from '../run-cli.ts';
import type { Capture } from './capture.ts';

/** What a file must contain besides equal RAM. */
export interface Expected {
  format?: string;
  passes?: number;
  hasDeltas?: boolean;
  hasCompressed?: boolean;
  pageSize?: number;
  /** Codes of the expected warnings. */
  warnings?: string[];
  /** Blocks whose content the file does not have. */
  ignored?: string[];
  check?: (inspection: InspectJson) => void;
}

export async function equalFiles(a: string, b: string): Promise<boolean> {
  return promisify(execFile)('cmp', ['-s', a, b]).then(
    () => true,
    () => false,
  );
}

/** The options that name the other files of the capture. */
export function partOptions({ parts, multifdFiles }: Capture): string[] {
  const each = (option: string, files: readonly string[] = []) => files.flatMap((file) => [option, file]);
  return [
    ...each('--channel', multifdFiles),
    ...each('--resume-of', parts?.resumeOf),
    ...each('--preempt', parts?.preempt),
    ...each('--return-path', parts?.returnPath),
  ];
}

/** Extracts every block and compares it with the truth, byte for byte. */
async function expectEqualRam(made: Capture, location: string, ignored: readonly string[]): Promise<void> {
  const directory = join(made.file, '..', 'extracted');
  const partial = ignored.length > 0 ? ['--partial'] : [];
  const extracted = await runCli(['extract', location, ...partOptions(made), '--all', directory, '--json', ...partial]);
  if (ignored.length === 0) expect(extracted.stderr).toBe('');
  expect(extracted.code).toBe(ignored.length === 0 ? 0 : 1);
  const all: { idstr: string; path: string; length: number }[] = JSON.parse(extracted.stdout).blocks;
  const blocks = all.filter(({ idstr }) => !ignored.includes(idstr));
  expect(blocks.map(({ idstr }) => idstr).sort()).toEqual(
    [...made.truth.keys()].filter((idstr) => !ignored.includes(idstr)).sort(),
  );
  for (const { idstr, path, length } of blocks) {
    const truth = made.truth.get(idstr);
    expect({ idstr, length }).toEqual({ idstr, length: truth?.length });
    expect(await equalFiles(path, truth?.path ?? ''), `${idstr} equals the source's`).toBe(true);
  }
}

/** Encodes the decoded records again. */
async function expectAgain(made: Capture): Promise<void> {
  const { file, offset, parts, multifdFiles, route, version, parameters } = made;
  const bytes = new Uint8Array(readFileSync(file));
  const readAll = (files: readonly string[]) => files.map((each) => new Uint8Array(readFileSync(each)));
  const hasZeroPages = parameters['zero-page-detection'] === 'none';
  if (route === 'mapped-ram') await expectMappedAgain(bytes, offset, hasZeroPages);
  else if (parts === undefined) await expectStreamAgain(bytes, offset);
  else await expectStreamsAgain({ main: bytes, resumeOf: readAll(parts.resumeOf), preempt: readAll(parts.preempt) });
  for (const channel of readAll(multifdFiles)) expectChannelAgain(channel, version !== '7.2');
}

export async function expectRead(made: Capture, expected: Expected = {}): Promise<void> {
  const { warnings = [], ignored = [] } = expected;
  const location = made.offset === undefined ? made.file : `${made.file},offset=${made.offset}`;
  const parts = partOptions(made);
  const inspected = await runCli(['inspect', '--json', location, ...parts]);
  const inspection: InspectJson = JSON.parse(inspected.stdout);
  expect(inspection.error).toBeNull();
  // Memory that was left out is missing.
  const isComplete = ignored.length === 0;
  expect(inspection.complete).toBe(isComplete);
  // It reads to the last byte.
  expect((inspection.length as number) + (made.offset ?? 0)).toBe(statSync(made.file).size);
  for (const { source, bytes } of inspection.multifd?.channels ?? []) expect(bytes).toBe(statSync(source).size);
  expect(inspection.multifd?.channels.length ?? 0).toBe(made.multifdFiles.length);
  expect(inspection.format).toBe(expected.format ?? 'stream');
  if (expected.passes !== undefined) expect(inspection.ram.passes).toBeGreaterThanOrEqual(expected.passes);
  if (expected.hasDeltas === true) expect(inspection.ram.records.xbzrle.records).toBeGreaterThan(0);
  if (expected.hasCompressed === true) expect(inspection.ram.records.compressed.records).toBeGreaterThan(0);
  if (expected.pageSize !== undefined) expect(inspection.ram.blocks[0]?.pageSize).toBe(expected.pageSize);
  expect(inspection.ram.blocks.filter((block) => block.ignored).map(({ idstr }) => idstr)).toEqual(ignored);
  expected.check?.(inspection);

  const verified = await runCli(['verify', '--json', location, ...parts]);
  const { ok, findings } = JSON.parse(verified.stdout);
  const serious = findings.filter(({ severity }: { severity: string }) => severity !== 'info');
  expect(serious.map(({ code }: { code: string }) => code)).toEqual([
    ...warnings,
    ...ignored.map(() => 'block-ignored'),
  ]);
  expect(ok).toBe(isComplete);
  expect(verified.code).toBe(isComplete ? 0 : 1);

  await expectEqualRam(made, location, ignored);
  await expectAgain(made);

  if (made.offset === undefined) {
    // The same through a pipe, where the end cannot be read first.
    const piped = await runCli(['inspect', '--json', '-', ...parts], createReadStream(made.file));
    const { ram, sections } = JSON.parse(piped.stdout) as InspectJson;
    const boundaryless = ({ boundary: _, ...section }: InspectJson['sections'][number]) => section;
    expect(sections.map(boundaryless)).toEqual(inspection.sections.map(boundaryless));
    expect(ram.blocks).toEqual(inspection.ram.blocks);
  }
}
