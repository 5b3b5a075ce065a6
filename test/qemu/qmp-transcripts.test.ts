/**
 * What real QEMUs answer over QMP is what test/fixtures/qmp says. With VMFERRY_MAKE_FIXTURES=1 it is written there:
 *
 *   VMFERRY_MAKE_FIXTURES=1 npx vitest run --project 'qemu*' test/qemu/qmp-transcripts.test.ts
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { brokenTexts } from '../qmp/broken-json.ts';
import { usedBy } from '../qmp/real-schema.ts';
import { qmpFixtures, readTranscript, recordedReleases, transcriptNames, writeTranscript } from '../qmp/transcript.ts';
import { play, withMonitor } from './qmp-player.ts';
import { lacksQemu } from './require.ts';

const isMaking = Boolean(process.env.VMFERRY_MAKE_FIXTURES);

/** Compares with a fixture, or writes it. */
function expectFixture(name: string, value: unknown): void {
  const path = join(qmpFixtures, name);
  if (isMaking) writeFileSync(path, `${JSON.stringify(value, undefined, 1)}\n`);
  else expect(value).toEqual(JSON.parse(readFileSync(path, 'utf8')));
}

describe.skipIf(lacksQemu('7.2', '10.0'))('a real QEMU', () => {
  test.each(transcriptNames())('%s', async (name) => {
    const steps = readTranscript(name);
    const played = { '7.2': await play('7.2', steps), '10.0': await play('10.0', steps) };
    const now = steps.map((step, i) => ({
      ...step,
      answers: { '7.2': played['7.2'][i] as string[], '10.0': played['10.0'][i] as string[] },
    }));
    if (isMaking) writeTranscript(name, now);
    else expect(now).toEqual(steps);
  });

  test.each(recordedReleases)('%s: broken JSON', async (version) => {
    const answers = await withMonitor(version, async (exchange) => {
      await exchange('{"execute": "qmp_capabilities"}\n');
      const all: string[][] = [];
      for (const text of brokenTexts(400)) all.push(await exchange(Buffer.concat([text, Buffer.from('\n')])));
      return all;
    });
    expectFixture('broken-json.json', answers);
  });

  test.each(recordedReleases)('%s: its schema', async (version) => {
    const lines = await withMonitor(version, async (exchange) => {
      await exchange('{"execute": "qmp_capabilities"}\n');
      return exchange('{"execute": "query-qmp-schema"}\n');
    });
    expectFixture(`schema-${version}.json`, usedBy(JSON.parse(lines[0] as string).return));
  });
});
