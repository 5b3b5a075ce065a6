/** What is said to be refused is what real QEMU 7.2 and 10.0 refused in the recorded transcripts. */
import { describe, expect, it } from 'vitest';
import { judgeRequests } from '../../src/qmp/compatibility.ts';
import { parseJson } from '../../src/qmp/json-reader.ts';
import type { JsonObject } from '../../src/qmp/json-value.ts';
import { readTranscript, recordedReleases, transcriptNames } from './transcript.ts';

/** Errors that depend on the state of a VM or its host, which is not judged. */
const ofState = [
  ...['Instance not found', 'No file descriptor supplied via SCM_RIGHTS'],
  ...["dirty-limit requires KVM with accelerator property 'dirty-ring-size' set"],
];

describe.each(recordedReleases)('QEMU %s refuses what it refused', (release) => {
  it.each(transcriptNames())('%s', async (name) => {
    const steps = readTranscript(name);
    const requests: { line: number; text: string; isFirst: boolean }[] = [];
    const expected: (string | undefined)[] = [];
    let begun = '';
    for (const { text, isPart, answers } of steps) {
      begun += `${text}\n`;
      if (isPart) continue;
      // A part of a transcript begins before the negotiation.
      const isFirst = requests.length === 0;
      const first = answers[release].map((line) => parseJson(line.replace(/: -?inf\b/g, ': 0')) as JsonObject);
      const error = first.find((answer) => answer.error !== undefined)?.error as JsonObject | undefined;
      const desc = error === undefined ? undefined : String(error.desc);
      requests.push({ line: requests.length, text: begun, isFirst });
      // Commands that no schema has are not judged.
      const isJudged = desc !== undefined && !ofState.includes(desc) && !desc.endsWith('has not been found');
      expected.push(isJudged ? desc : undefined);
      begun = '';
    }
    const judged = await judgeRequests(requests, [release]);
    const found = judged.map(({ refusals: [refusal] }) => refusal?.desc);
    const rows = (texts: readonly (string | undefined)[]) =>
      texts.map((desc, i) => [requests[i]?.text, desc]).filter((_, i) => !isNegotiation(expected[i], found[i]));
    expect(rows(found)).toEqual(rows(expected));
  });
});

/** Recorded transcripts may begin before the negotiation, which is then made up for. */
const isNegotiation = (recorded: string | undefined, found: string | undefined) =>
  recorded?.startsWith('Expecting capabilities negotiation') === true || found?.startsWith('Capabilities negotiation');

it('does not judge what no schema has, and counts what was set before', async () => {
  const set = (name: string) => ({
    text: `{"execute": "migrate-set-capabilities", "arguments": {"capabilities": [{"capability": "${name}", "state": true}]}}`,
    isFirst: false,
  });
  const judged = await judgeRequests(
    [
      { line: 1, text: '{"execute": "device_add", "arguments": {"driver": "x"}}', isFirst: true },
      { line: 2, ...set('xbzrle') },
      { line: 3, ...set('multifd') },
      { line: 4, ...set('mapped-ram') },
    ],
    ['7.2', '9.0', '10.0'],
  );
  expect(judged.map(({ isKnown, refusals }) => [isKnown, refusals.map(({ release }) => release)])).toEqual([
    [false, []],
    [true, []],
    [true, ['9.0', '10.0']],
    [true, ['7.2', '9.0', '10.0']],
  ]);
});
