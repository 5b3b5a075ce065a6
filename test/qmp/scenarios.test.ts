/** Migrations of vmferry's machines, driven over QMP, go as those of real QEMU 7.2 and 10.0 (test/fixtures/qmp-migration). */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { MachineStage } from '../support/scenario-machines.ts';
import { scenarioRam } from '../support/scenario-ram.ts';
import { readScenarios, scenarioFiles } from './scenario.ts';
import { expectedLines, knownDifference, playedLines } from './scenario-compare.ts';
import { playScenario } from './scenario-player.ts';
import { recordedReleases } from './transcript.ts';

const dir = mkdtempSync(join(tmpdir(), 'scenarios-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const ram = scenarioRam();
let count = 0;

describe.each(recordedReleases)('as QEMU %s', (release) => {
  describe.each(scenarioFiles())('%s', (file) => {
    for (const scenario of readScenarios(file)) {
      const why = knownDifference(scenario, release);
      if (why !== undefined) console.info(`not as QEMU ${release}: ${file}: ${scenario.title}: ${why}`);
      it.skipIf(why !== undefined)(scenario.title, async () => {
        const isReal = scenario.steps.some(({ text }) => text === 'sockets real');
        const { mkdir } = await import('node:fs/promises');
        const own = join(dir, String(count++));
        await mkdir(own);
        const lines = await playScenario(scenario, new MachineStage(own, release, ram, isReal));
        expect(playedLines(scenario, lines)).toEqual(expectedLines(scenario, release, () => true));
      });
    }
  });
});
