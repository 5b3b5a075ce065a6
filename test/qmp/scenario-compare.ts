/** What of a scenario is compared, and the differences that are known. */
import type { RecordedRelease, Scenario } from './scenario.ts';
import { withEvents } from './scenario.ts';

/** What vmferry does not do yet, by the title of the scenario. */
const differences: Readonly<Record<string, { why: string; releases?: readonly RecordedRelease[] }>> = {
  'capability: multifd, compressions that differ': {
    why: 'its destination stays active for ever, vmferry ends',
    releases: ['7.2'],
  },
};

/** Why vmferry does not do what a scenario has; undefined if it does. */
export function knownDifference({ title }: Scenario, release: RecordedRelease): string | undefined {
  const known = differences[title];
  return known === undefined || known.releases?.includes(release) === false ? undefined : known.why;
}

const lineOf = (text: string, result: string | undefined) => (result === undefined ? text : `${text}  ⇒  ${result}`);

export const playedLines = ({ steps }: Scenario, lines: readonly (string | undefined)[]): string[] =>
  withEvents(steps).map(({ text }, i) => lineOf(text, lines[i]));

/** @param isVmferry whether a VM is one of vmferry's, by its name */
export const expectedLines = (
  { steps }: Scenario,
  release: RecordedRelease,
  isVmferry: (name: string) => boolean,
): string[] =>
  steps.map(({ text, results }) => {
    const own = results.vmferry;
    const name = /^(?:events of )?(\w+)/.exec(own ?? '')?.[1] ?? '';
    return lineOf(text, own !== undefined && isVmferry(name) ? own : results[release]);
  });
