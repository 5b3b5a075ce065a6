/**
 * Makes test/fixtures/dumps: the output of real QEMUs for -dump-vmstate, reduced to the device types of the fixtures
 * and one whose state differs between the versions. Runs only on request:
 *
 *   VMFERRY_MAKE_FIXTURES=1 npx vitest run --project 'qemu*' test/qemu/make-dump-fixtures.test.ts
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { open, readFacts } from '../../src/node.ts';
import { fixturePath } from '../fixture-files.ts';
import { findQemu, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

type Dump = Record<string, { Description?: { name: string } }>;

describe.skipIf(process.env.VMFERRY_MAKE_FIXTURES !== '1' || lacksQemu('7.2', '10.0'))('dump fixtures', () => {
  test.each(qemuVersions)('of QEMU %s', async (version) => {
    const wanted = new Set(['pciespscsi']);
    for (const fixture of ['pc-xbzrle-7.2', 'pc-xbzrle-10.0']) {
      const file = await open(fixturePath(`${fixture}.bin`));
      const { sections } = await readFacts(file);
      await file.close();
      for (const { description } of sections) wanted.add(description?.vmsdName ?? '');
    }
    const whole = join(tmpdir(), `vmferry-dump-${process.pid}.json`);
    execFileSync(findQemu(version) as string, ['-M', 'pc-i440fx-7.2', '-dump-vmstate', whole], { stdio: 'ignore' });
    const dump = JSON.parse(readFileSync(whole, 'utf8')) as Dump;
    rmSync(whole);
    const isWanted = ([type, { Description }]: [string, Dump[string]]) =>
      type === 'vmschkmachine' || wanted.has(Description?.name ?? '');
    const cut = JSON.stringify(Object.fromEntries(Object.entries(dump).filter(isWanted)), null, 1);
    expect(cut.length).toBeLessThan(1 << 20);
    mkdirSync(fixturePath('dumps'), { recursive: true });
    writeFileSync(fixturePath(`dumps/pc-i440fx-7.2-on-${version}.json`), `${cut}\n`);
  });
});
