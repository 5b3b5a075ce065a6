/** `vmferry qmp --replay TRANSCRIPT`: which release would refuse which request. */
import { readFileSync } from 'node:fs';
import { everyRelease, type JudgedRequest, judgeRequests } from '../../qmp/compatibility.ts';
import type { QmpReplayJson } from '../../qmp/json.ts';
import type { ReleaseName } from '../../schema/release-rules.ts';
import { ExitCode, UsageError } from '../exit-codes.ts';
import { toJson } from '../json.ts';
import { printable } from '../print/format.ts';
import { writeOut } from '../run.ts';
import { readTranscript } from './transcript.ts';

export const replayReleases = [...everyRelease, 'all'] as const;

/** Prints what is refused. The exit code is 1 if anything is. @throws UsageError if there is nothing to judge */
export async function replay(path: string, compat: ReleaseName | 'all', isJson: boolean): Promise<void> {
  const requests = readTranscript(readFileSync(path === '-' ? 0 : path, 'utf8'));
  if (requests.length === 0) throw new UsageError(`expected requests in ${path}, found none`);
  const releases = compat === 'all' ? everyRelease : [compat];
  const judged = await judgeRequests(requests, releases);
  await writeOut(isJson ? toJson<QmpReplayJson>(asJson(judged, releases)) : describe(judged, releases, path));
  if (judged.some(({ refusals }) => refusals.length > 0)) process.exitCode = ExitCode.badInput;
}

function asJson(judged: readonly JudgedRequest[], releases: readonly ReleaseName[]) {
  const named = (command: string | undefined) => (command === undefined ? {} : { command });
  return {
    releases: [...releases],
    requests: judged.length,
    refused: judged
      .filter(({ refusals }) => refusals.length > 0)
      .map(({ line, command, refusals }) => ({ line, ...named(command), by: refusals.map((each) => ({ ...each })) })),
    unknown: judged.filter(({ isKnown }) => !isKnown).map(({ line, command }) => ({ line, ...named(command) })),
  };
}

function describe(judged: readonly JudgedRequest[], releases: readonly ReleaseName[], path: string): string {
  const lines: string[] = [];
  for (const { line, command, refusals } of judged) {
    const texts = [...new Set(refusals.map(({ desc }) => desc))];
    for (const text of texts) {
      const by = refusals.filter(({ desc }) => desc === text).map(({ release }) => release);
      lines.push(`${path}:${line}: ${command ?? 'a request'}: QEMU ${by.join(', ')}: ${text}`);
    }
  }
  for (const release of releases) {
    const refused = judged.filter(({ refusals }) => refusals.some((each) => each.release === release)).length;
    const taken = judged.filter(({ isKnown }) => isKnown).length - refused;
    lines.push(`QEMU ${release}: ${refused} refused, ${taken} accepted`);
  }
  const unknown = judged.filter(({ isKnown }) => !isKnown);
  if (unknown.length > 0) {
    const names = [...new Set(unknown.map(({ command }) => command))].join(', ');
    lines.push(`not judged: ${unknown.length} (${names}): vmferry does not have their schema`);
  }
  return `${lines.map(printable).join('\n')}\n`;
}
