/** The bar at the top: the name of the file, the verdict on it, and actions. */
import { type Severity, type Verdict, verdictOf } from '../../../vm/migration-error.ts';
import { formatBytes, plural, printable } from '../../../words/format.ts';
import { goTo } from '../jump.ts';
import { leave } from '../session.ts';
import { ExportMenu } from './export-menu.tsx';
import { useMachine } from './machine-context.ts';

const parts = [
  ['summary', 'Summary'],
  ['map', 'RAM map'],
  ['bytes', 'Bytes'],
  ['differences', 'Differences'],
  ['findings', 'Findings'],
  ['sections', 'Sections'],
  ['devices', 'Devices'],
] as const;

export function MachineBar() {
  const { file } = useMachine();
  return (
    <div class="machine-bar">
      <h2 class="file-name">{printable(file.name)}</h2>
      <VerdictLine />
      <span class="grow" />
      <ExportMenu />
      <button type="button" onClick={leave}>
        Open another
      </button>
      <nav aria-label="Parts of this page">
        {parts.map(([id, name]) => (
          <a key={id} href={`#${id}`}>
            {name}
          </a>
        ))}
      </nav>
    </div>
  );
}

/** The class and the word of each verdict. The command line uses the same words. */
const verdicts: Record<Verdict, [name: string, word: string]> = {
  ok: ['is-ok', 'OK'],
  incomplete: ['is-incomplete', 'INCOMPLETE'],
  bad: ['is-bad', 'BAD'],
};

/** The verdict on the file, and the number of errors and warnings. A click leads to the findings. */
function VerdictLine() {
  const { file, verification } = useMachine();
  const state = verification.state.value;
  const { error } = file.inspection;
  const [name, word] =
    state.kind === 'done'
      ? verdicts[state.result.verdict]
      : error !== undefined
        ? verdicts[verdictOf([error])]
        : ['', state.kind === 'running' ? 'verifying…' : 'not verified'];
  const findings = state.kind === 'done' ? state.result.findings : file.inspection.findings;
  const count = (severity: Severity) => findings.filter((each) => each.severity === severity).length;
  const notes = [
    count('error') === 0 ? undefined : plural(count('error'), 'error'),
    count('warning') === 0 ? undefined : plural(count('warning'), 'warning'),
    file.size === undefined ? undefined : formatBytes(file.size),
  ].filter((each) => each !== undefined);
  return (
    <span data-test="verdict">
      <button type="button" class={`verdict ${name}`} title="Show the findings" onClick={() => goTo('findings')}>
        {word}
      </button>{' '}
      <span class="note">{notes.join(', ')}</span>
    </span>
  );
}
