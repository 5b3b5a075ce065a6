/**
 * What real QEMUs with disks answer over QMP is what test/fixtures/qmp/drives says. With VMFERRY_MAKE_FIXTURES=1 it is
 * written there, as by qmp-transcripts.test.ts.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { driveImages, driveTranscripts, endsJob, settled, startsJob } from '../qmp/drive-transcript.ts';
import { readTranscript, type Step, writeTranscript } from '../qmp/transcript.ts';
import type { QemuVersion } from './qemu.ts';
import { withMonitor } from './qmp-player.ts';
import { lacksQemu } from './require.ts';

/** Writes the images. Returns the arguments that make nodes of them. */
function addDisks(dir: string): string[] {
  return [...driveImages()].flatMap(([name, bytes]) => {
    const path = join(dir, name);
    writeFileSync(path, bytes);
    const driver = name === 'disk2' ? 'raw' : 'qcow2';
    return ['-blockdev', `driver=${driver},node-name=${name},file.driver=file,file.filename=${path}`];
  });
}

const play = (version: QemuVersion, steps: readonly Step[]): Promise<string[][]> =>
  withMonitor(
    version,
    async (exchange, until) => {
      const answers: string[][] = [];
      for (const { text } of steps) {
        const lines = await exchange(`${text}\n`);
        const hasBegun = startsJob(text) && lines.some((line) => line.startsWith('{"return"'));
        if (hasBegun && !lines.some(endsJob)) lines.push(...(await until(/"status": "concluded"/)));
        answers.push(settled(lines));
      }
      return answers;
    },
    addDisks,
  );

describe.skipIf(lacksQemu('7.2', '10.0'))('a real QEMU with disks', () => {
  test.each(driveTranscripts)('%s', async (name) => {
    const steps = readTranscript(name);
    const played = { '7.2': await play('7.2', steps), '10.0': await play('10.0', steps) };
    const now = steps.map((step, i) => ({
      ...step,
      answers: { '7.2': played['7.2'][i] as string[], '10.0': played['10.0'][i] as string[] },
    }));
    if (process.env.VMFERRY_MAKE_FIXTURES) writeTranscript(name, now);
    else expect(now).toEqual(steps);
  });
});
