/**
 * Transcripts of QMP (test/fixtures/qmp/*.txt): what is sent, and what real QEMUs answered. A person can read and write
 * them; answers are recorded by test/qemu/make-qmp-fixtures.test.ts.
 *
 *     # a comment
 *     -> {"execute": "query-status"}      sent with a line break; all answers to it follow
 *     +> {"execute":                      sent with a line break; the message goes on in the next line
 *     <- {"return": {}}                   both releases answered this
 *     7.2 <- {"error": …}                 only that release
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const recordedReleases = ['7.2', '10.0'] as const;
type RecordedRelease = (typeof recordedReleases)[number];

export interface Step {
  /** Comments before it, as they stand. */
  readonly before: readonly string[];
  readonly text: string;
  /** The message goes on in the next step. */
  readonly isPart: boolean;
  readonly answers: Readonly<Record<RecordedRelease, string[]>>;
}

export const qmpFixtures = fileURLToPath(new URL('../fixtures/qmp/', import.meta.url));

export const transcriptNames = (): string[] =>
  readdirSync(qmpFixtures)
    .filter((name) => name.endsWith('.txt'))
    .map((name) => name.replace('.txt', ''));

export function readTranscript(name: string): Step[] {
  const steps: Step[] = [];
  let before: string[] = [];
  for (const line of readFileSync(join(qmpFixtures, `${name}.txt`), 'utf8').split('\n')) {
    const sent = /^([-+])> (.*)$/.exec(line);
    const answer = /^(?:(7\.2|10\.0) )?<- (.*)$/.exec(line);
    if (sent) {
      const answers = { '7.2': [], '10.0': [] };
      steps.push({ before, text: sent[2] as string, isPart: sent[1] === '+', answers });
      before = [];
    } else if (answer) {
      const only = answer[1] as RecordedRelease | undefined;
      for (const release of only ? [only] : recordedReleases) steps.at(-1)?.answers[release].push(answer[2] as string);
    } else before.push(line);
  }
  return steps;
}

export function writeTranscript(name: string, steps: readonly Step[]): void {
  const lines = steps.flatMap(({ before, text, isPart, answers }) => {
    const [old, recent] = recordedReleases.map((release) => answers[release]) as [string[], string[]];
    const same = JSON.stringify(old) === JSON.stringify(recent);
    const answered = same
      ? old.map((line) => `<- ${line}`)
      : recordedReleases.flatMap((release) => answers[release].map((line) => `${release} <- ${line}`));
    return [...before, `${isPart ? '+' : '-'}> ${text}`, ...answered];
  });
  writeFileSync(join(qmpFixtures, `${name}.txt`), `${lines.join('\n')}\n`);
}

/** An answer without what differs from run to run. */
export function withoutTimes(line: string): string {
  return line
    .replace(/"timestamp": \{[^}]*\}/, '"timestamp": "<time>"')
    .replace(/"micro": \d+/, '"micro": 0')
    .replace(/"package": "[^"]*"/, '"package": "<package>"');
}
