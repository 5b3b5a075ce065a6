/** The bar at the top: the name of the file, the verdict on it, and actions. */
import type { Verification } from '../../../tasks/inspect/verify.ts';
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
      <Verdict />
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

/** The verdict of the verification. A click leads to the findings. */
function Verdict() {
  const { file, verification } = useMachine();
  const state = verification.state.value;
  const size = file.size === undefined ? undefined : formatBytes(file.size);
  const { error } = file.inspection;
  const [name, text] =
    state.kind === 'done'
      ? verdictOn(state.result)
      : error !== undefined
        ? ['is-bad', 'BAD']
        : ['', state.kind === 'running' ? 'verifying…' : 'not verified'];
  const findings = state.kind === 'done' ? state.result.findings : file.inspection.findings;
  const warnings = findings.filter(({ severity }) => severity === 'warning').length;
  const notes = [warnings === 0 ? undefined : plural(warnings, 'warning'), size].filter((each) => each !== undefined);
  return (
    <span data-test="verdict">
      <button type="button" class={`verdict ${name}`} title="Show the findings" onClick={() => goTo('findings')}>
        {text}
      </button>{' '}
      <span class="note">{notes.join(', ')}</span>
    </span>
  );
}

/** The class and the word of a verdict, as the command line says it. */
function verdictOn({ ok, findings }: Verification): [name: string, text: string] {
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  return ok ? ['is-ok', 'OK'] : ['is-bad', `BAD: ${plural(errors, 'error')}`];
}
