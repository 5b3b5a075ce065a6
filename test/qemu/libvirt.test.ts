/**
 * vmferry reads real libvirt images in every format to the last byte, with the RAM of the saved guest.
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all formats.
 * VMFERRY_MAKE_FIXTURES=1 keeps the images as test/fixtures/containers.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { open } from '../../src/node.ts';
import { readDomain } from '../../src/read/container/domain-xml.ts';
import { encodeLibvirtHead } from '../../src/read/container/libvirt-header.ts';
import { runCli } from '../run-cli.ts';
import { writeContainerFixture } from './container-fixtures.ts';
import { Libvirt, lacksLibvirt, type SavedImage, saveFormats } from './libvirt.ts';
import { differences } from './truth.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const formats = saveFormats.filter((format) => isFull || format === 'sparse' || format === 'zstd');

const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

describe.skipIf(lacksLibvirt())('libvirt save images', () => {
  let libvirt: Libvirt;
  beforeAll(async () => {
    libvirt = await Libvirt.start();
  });
  afterAll(() => libvirt?.stop());

  test.each(formats)('%s', async (format) => {
    const wasRunning = format !== 'gzip';
    const made = await libvirt.save(format, wasRunning);
    const env = process.env.VMFERRY_TOOLS
      ? { PATH: `${process.env.PATH}${delimiter}${process.env.VMFERRY_TOOLS}` }
      : {};
    const inspected = await runCli(['inspect', '--json', '--hash', made.file], undefined, { env });
    expect(inspected.stderr).toBe('');
    const inspection = JSON.parse(inspected.stdout);
    expect(inspection).toMatchObject({
      complete: true,
      error: null,
      format: format === 'sparse' ? 'mapped-ram' : 'stream',
      containers: [{ kind: 'libvirt', version: 2, isFinished: true, format, wasRunning, domain: { type: 'qemu' } }],
    });
    const hashes = (blocks: { idstr: string; sha256: string }[]) =>
      Object.fromEntries(blocks.map((block) => [block.idstr, block.sha256]));
    expect(hashes(inspection.ram.blocks)).toEqual(
      Object.fromEntries([...made.truth].map(([idstr, { path }]) => [idstr, sha256(path)])),
    );
    const verified = await runCli(['verify', '--json', made.file], undefined, { env });
    expect(JSON.parse(verified.stdout)).toMatchObject({ ok: true, findings: [] });

    const xml = await runCli(['inspect', '--xml', made.file]);
    expect(xml.stdout).toContain('<title>ferry &amp; quay</title>');
    expect(xml.stdout).toMatch(/^<domain .*<\/domain>\n$/s);
    if (process.env.VMFERRY_MAKE_FIXTURES) keep(made);
  });

  function keep({ format, file, truth, wasRunning, libvirt: version }: SavedImage): void {
    writeContainerFixture(`libvirt-${format}`, readFileSync(file), {
      madeBy: `libvirt ${version}, virsh save with save_image_format = "${format}"`,
      wasRunning,
      streams: [{ truth }],
    });
  }

  test.each(formats)('converted by vmferry to %s are restored by libvirt, with the same RAM', async (format) => {
    const made = await libvirt.save('raw', false);
    const env = process.env.VMFERRY_TOOLS
      ? { PATH: `${process.env.PATH}${delimiter}${process.env.VMFERRY_TOOLS}` }
      : {};
    const mapped = join(made.file, '../guest.mapped-ram');
    const image = join(made.file, '../guest.save');
    const xml = join(made.file, '../domain.xml');
    writeFileSync(xml, (await runCli(['inspect', '--xml', made.file])).stdout);
    for (const args of [
      [made.file, mapped],
      [mapped, image, '--to', 'libvirt', '--libvirt-format', format, '--xml', xml],
    ]) {
      const { code, stderr } = await runCli(['convert', ...args], undefined, { env });
      expect([code, stderr]).toEqual([0, '']);
    }
    const shown = await libvirt.savedXml(readFileSync(image));
    expect(readDomain(shown)).toEqual(readDomain(readFileSync(xml, 'utf8')));
    expect(differences(await libvirt.restore(readFileSync(image)), made.truth)).toEqual([]);
  });

  test('written by our encoder are restored by libvirt', async () => {
    const made = await libvirt.save('raw', false);
    const bytes = readFileSync(made.file);
    const file = await open(bytes);
    const [container] = file.containers;
    if (container?.kind !== 'libvirt') throw new Error('expected a libvirt image');
    const stream = bytes.subarray(file.offset);
    for (const [format, body] of [
      ['raw', stream],
      ['gzip', gzipSync(stream)],
      ['bzip2', execFileSync('bzip2', ['-c'], { input: stream })],
    ] as const) {
      const head = encodeLibvirtHead({ ...container.data, format, wasRunning: false, padding: 10 });
      await libvirt.restore(Buffer.concat([head, body]));
    }
    const broken = encodeLibvirtHead({ ...container.data, format: 'raw', wasRunning: false, isFinished: false });
    await expect(libvirt.restore(Buffer.concat([broken, stream]))).rejects.toThrow(/incomplete/);
  });
});
