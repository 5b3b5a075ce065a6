/**
 * Migrations driven over QMP go as test/fixtures/qmp-migration says: between real QEMUs, between `vmferry vm`s, and from
 * one to the other. With VMFERRY_MAKE_FIXTURES=1 what real QEMUs do is written there:
 *
 *   VMFERRY_MAKE_FIXTURES=1 npx vitest run --project 'qemu*' test/qemu/scenarios.test.ts
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  type RecordedRelease,
  readScenarios,
  type Scenario,
  type ScenarioStep,
  scenarioFiles,
  withEvents,
  writeScenarios,
} from '../qmp/scenario.ts';
import { expectedLines, knownDifference, playedLines } from '../qmp/scenario-compare.ts';
import { playScenario } from '../qmp/scenario-player.ts';
import { recordedReleases } from '../qmp/transcript.ts';
import { scenarioRam } from '../support/scenario-ram.ts';
import { lacksQemu } from './require.ts';
import { type Player, ProcessStage } from './scenario-processes.ts';

const isMaking = Boolean(process.env.VMFERRY_MAKE_FIXTURES);
const isFull = process.env.VMFERRY_QEMU === 'full';
/** Of these files each scenario is played in the quick part. */
const quick = ['precopy-quick'];
const dir = mkdtempSync(join(tmpdir(), 'scenarios-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const ram = scenarioRam();

async function play(scenario: Scenario, release: RecordedRelease, playerOf: (name: string) => Player) {
  await using stage = new ProcessStage(mkdtempSync(join(dir, 'play-')), release, ram, playerOf);
  // The stage stays until it has ended.
  return await playScenario(scenario, stage);
}

const files = scenarioFiles().filter((name) => isFull || isMaking || quick.includes(name));

if (isMaking) {
  describe.skipIf(lacksQemu(...recordedReleases))('records', () => {
    test.each(files)('%s', { timeout: 1_200_000 }, async (file) => {
      const only = process.env.VMFERRY_SCENARIO;
      const scenarios: Scenario[] = [];
      const failures: string[] = [];
      for (const scenario of readScenarios(file)) {
        const isChosen = only === undefined || scenario.title.includes(only);
        const recorded = isChosen ? await record(scenario).catch((error: Error) => error) : scenario;
        if (recorded instanceof Error) failures.push(recorded.message);
        scenarios.push(recorded instanceof Error ? scenario : recorded);
      }
      writeScenarios(file, scenarios);
      expect(failures).toEqual([]);
    });
  });
} else {
  describe.skipIf(lacksQemu(...recordedReleases)).each(recordedReleases)('QEMU %s', (release) => {
    describe.each(files)('%s', (file) => {
      for (const scenario of readScenarios(file)) playByAll(scenario, release);
    });
  });
}

async function record(scenario: Scenario): Promise<Scenario> {
  const steps: ScenarioStep[] = withEvents(scenario.steps).map((step) => ({ ...step, results: { ...step.results } }));
  for (const release of recordedReleases) {
    const lines = await play(scenario, release, () => 'QEMU').catch((error: Error) => {
      throw new Error(`${scenario.title}, ${release}: ${error.message}`);
    });
    for (const [i, step] of steps.entries()) {
      const line = lines[i];
      if (line !== undefined) step.results[release] = line;
    }
  }
  return { ...scenario, steps };
}

function playByAll(scenario: Scenario, release: RecordedRelease): void {
  const sides: [string, (name: string) => Player][] = [
    ['QEMU', () => 'QEMU'],
    ['vmferry', () => 'vmferry'],
    ['S is a QEMU', (name) => (name === 'S' ? 'QEMU' : 'vmferry')],
    ['S is vmferry', (name) => (name === 'S' ? 'vmferry' : 'QEMU')],
  ];
  const hasTwo = scenario.steps.filter(({ text }) => text.startsWith('vm ')).length > 1;
  for (const [side, playerOf] of sides.slice(0, hasTwo ? 4 : 2)) {
    const why = side === 'QEMU' ? undefined : knownDifference(scenario, release);
    test.skipIf(why !== undefined)(`${scenario.title} (${side})`, async () => {
      const isVmferry = (name: string) => playerOf(name) === 'vmferry';
      const lines = await play(scenario, release, playerOf);
      expect(playedLines(scenario, lines)).toEqual(expectedLines(scenario, release, isVmferry));
    });
  }
}
