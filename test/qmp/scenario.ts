/**
 * Scenarios of migration (test/fixtures/qmp-migration/*.txt): what is sent to VMs, and what real QEMUs answered. A person
 * can read and write them; answers and events are recorded by test/qemu/scenarios.test.ts.
 *
 *     ## A title                               a scenario of its own begins
 *     # a comment
 *     sockets real                             needs real sockets, also where the VMs are in one process
 *     vm S                                     a VM; its capability `events` is switched on
 *     vm D incoming=unix:{dir}/m paused        {dir} is a directory of this scenario; options: see VmSpec
 *     S on xbzrle, return-path                 capabilities, which must be accepted
 *     S set {"max-bandwidth": 65536}           parameters, which must be accepted
 *     S -> {"execute": "query-status"}         sent; {port D} is where D listens
 *     S <- {"return": {}}                      both releases answered this
 *     7.2 S <- {"error": …}                    only that release
 *     vmferry S <- {"error": …}                vmferry, knowingly; a comment says why
 *     (wait for S MIGRATION {"status": "completed"})       an event later than the last one that was waited for
 *     (until S query-status {"status": "postmigrate"})     asked until the answer has these members
 *     (S ends)                                 its process ends
 *     S ended: 1                               … with this code
 *     (kill D)  (peer reads unix:{dir}/m)  (peer sends TEXT to unix:{dir}/m)  (peer closes)
 *     10.0 S -> {"execute": …}                 any of these: played to that release only
 *     (file NAME TEXT)                         writes a line into a file in {dir}
 *     events of S: …                           all events of it, as with answers, without passes after the first
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { recordedReleases } from './transcript.ts';

export type RecordedRelease = (typeof recordedReleases)[number];
/** Whose answers they are. */
type Answerer = RecordedRelease | 'vmferry';

/** How a VM is started. */
export interface VmSpec {
  name: string;
  incoming?: string;
  paused?: boolean;
  uuid?: string;
  /** MiB. Default 16. */
  memory?: number;
  machine?: string;
  object?: string[];
  /** Its capability `events` stays off. */
  quiet?: boolean;
  /** RAM is zero, and in no file. */
  empty?: boolean;
}

/** One line that is played, and the lines that came of it. */
export interface ScenarioStep {
  /** Comments before it, as they stand. */
  readonly before: readonly string[];
  readonly text: string;
  readonly results: Partial<Record<Answerer, string>>;
}

export interface Scenario {
  readonly title: string;
  readonly steps: readonly ScenarioStep[];
  /** The last comments of it. */
  readonly after: readonly string[];
}

const folder = fileURLToPath(new URL('../fixtures/qmp-migration/', import.meta.url));

export const scenarioFiles = (): string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.txt'))
    .map((name) => name.replace('.txt', ''));

/** The line that stands for the events of a VM. */
const resultLine = /^(?:(7\.2|10\.0|vmferry) )?((?:\w+ <-|\w+ ended:|events of \w+:) ?.*)$/;

export function readScenarios(name: string): Scenario[] {
  const text = readFileSync(join(folder, `${name}.txt`), 'utf8');
  return text
    .split(/^## /m)
    .slice(1)
    .map((part) => {
      const [title = '', ...lines] = part.trimEnd().split('\n');
      return { title, ...readSteps(lines) };
    });
}

function readSteps(lines: readonly string[]): Omit<Scenario, 'title'> {
  const steps: ScenarioStep[] = [];
  let before: string[] = [];
  for (const line of lines) {
    const [, only, result] = resultLine.exec(line) ?? [];
    if (result !== undefined) {
      const last = eventsStep(result, steps) ?? steps.at(-1);
      if (last === undefined) throw new Error(`a result without a step: ${line}`);
      const answerers = only === undefined ? recordedReleases : [only as Answerer];
      for (const each of answerers) last.results[each] = result;
    } else if (line === '' || line.startsWith('#')) before.push(line);
    else {
      steps.push({ before, text: line.trim(), results: {} });
      before = [];
    }
  }
  return { steps, after: before };
}

/** Events are results of a step that is not written. */
function eventsStep(result: string, steps: ScenarioStep[]): ScenarioStep | undefined {
  const [, vm] = /^events of (\w+):/.exec(result) ?? [];
  if (vm === undefined) return undefined;
  const text = `events ${vm}`;
  const present = steps.find((step) => step.text === text);
  if (present !== undefined) return present;
  steps.push({ before: [], text, results: {} });
  return steps.at(-1);
}

export function writeScenarios(name: string, scenarios: readonly Scenario[]): void {
  const lines = scenarios.flatMap(({ title, steps, after }) => [
    `## ${title}`,
    ...steps.flatMap(({ before, text, results }) => [
      ...before,
      ...(text.startsWith('events ') ? [] : [text.startsWith('(') ? `   ${text}` : text]),
      ...resultLines(results),
    ]),
    ...(after.length === 0 ? [''] : after),
  ]);
  writeFileSync(join(folder, `${name}.txt`), `${lines.join('\n').trimEnd()}\n`);
}

function resultLines(results: ScenarioStep['results']): string[] {
  const { '7.2': old, '10.0': recent, vmferry } = results;
  const both = old === recent && old !== undefined ? [old] : [];
  const each = recordedReleases.flatMap((release) =>
    results[release] === undefined ? [] : [`${release} ${results[release]}`],
  );
  return [...(both.length > 0 ? both : each), ...(vmferry === undefined ? [] : [`vmferry ${vmferry}`])];
}

/** What a line `vm NAME option…` says. */
export function vmSpecOf(text: string): VmSpec {
  const [, name = '', ...options] = text.split(' ');
  const spec: VmSpec = { name };
  for (const option of options) {
    const [key = '', ...rest] = option.split('=');
    const value = rest.join('=');
    if (key === 'paused' || key === 'quiet' || key === 'empty') spec[key] = true;
    else if (key === 'memory') spec.memory = Number(value);
    else if (key === 'incoming' || key === 'uuid' || key === 'machine') spec[key] = value;
    else if (key === 'object') spec.object = [...(spec.object ?? []), value];
    else throw new Error(`unknown option of a VM: ${option}`);
  }
  return spec;
}

/** The events of VMs that are not listed yet are listed at the end. */
export function withEvents(steps: readonly ScenarioStep[]): ScenarioStep[] {
  const names = steps.filter(({ text }) => text.startsWith('vm ')).map(({ text }) => vmSpecOf(text).name);
  const missing = names.filter((name) => !steps.some(({ text }) => text === `events ${name}`));
  return [...steps, ...missing.map((name) => ({ before: [], text: `events ${name}`, results: {} }))];
}
