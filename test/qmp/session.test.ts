/** The answers of a session are those of real QEMU 7.2 and 10.0 (test/fixtures/qmp). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseJson } from '../../src/qmp/json-reader.ts';
import { brokenTexts } from './broken-json.ts';
import { settingsServer } from './settings-server.ts';
import {
  qmpFixtures,
  readTranscript,
  recordedReleases,
  type Step,
  transcriptNames,
  withoutTimes,
} from './transcript.ts';

/** Answers whose numbers a double cannot hold are not JSON. */
const read = (line: string) => parseJson(line.replace(/: -?inf\b/g, ': "inf"'));

/** Sends each step to a session of its own. Returns the answers, without what follows the greeting. */
async function answersTo(release: '7.2' | '10.0', steps: readonly Step[]): Promise<string[][]> {
  const lines: string[] = [];
  const session = settingsServer(release).connect((text) => lines.push(withoutTimes(text.trimEnd())));
  expect(lines.splice(0)).toHaveLength(1);
  const answers: string[][] = [];
  for (const { text } of steps) {
    await session.receive(new TextEncoder().encode(`${text}\n`));
    answers.push(lines.splice(0));
  }
  return answers;
}

describe.each(recordedReleases)('as QEMU %s', (release) => {
  it.each(transcriptNames())('%s', async (name) => {
    const steps = readTranscript(name);
    const answers = await answersTo(release, steps);
    for (const [i, step] of steps.entries()) {
      expect({ sent: step.text, answers: answers[i]?.map(read) }).toEqual({
        sent: step.text,
        answers: step.answers[release].map(read),
      });
    }
  });

  it('broken JSON', async () => {
    const recorded: string[][] = JSON.parse(readFileSync(join(qmpFixtures, 'broken-json.json'), 'utf8'));
    const lines: string[] = [];
    const session = settingsServer(release).connect((text) => lines.push(text.trimEnd()));
    await session.receive(new TextEncoder().encode('{"execute": "qmp_capabilities"}'));
    for (const [i, text] of brokenTexts(recorded.length).entries()) {
      lines.length = 0;
      await session.receive(text);
      await session.receive(new TextEncoder().encode('\n'));
      expect({ text: text.toString('latin1'), answers: lines.map(read) }).toEqual({
        text: text.toString('latin1'),
        answers: (recorded[i] as string[]).map(read),
      });
    }
  });
});

it('writes texts and numbers as QEMU does', async () => {
  const idOf = (line: string) => /"id": (.*)\}$/.exec(line.replace(/(, )?"return": \{\}/, ''))?.[1];
  const steps = readTranscript('printing');
  const answers = await answersTo('10.0', steps);
  const written = (lines: readonly string[][]) => lines.map(([line = '']) => line.replace(/"return": \{\}(, )?/, ''));
  expect(written(answers).map((line) => idOf(line))).toEqual(
    written(steps.map((step) => step.answers['10.0'])).map((line) => idOf(line)),
  );
});
