/** The bar at the top: the name of the file, the verdict on it, and actions. */
import { formatBytes, plural, printable } from '../../../words/format.ts';
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

/** The result of the verification in a word or two. */
function Verdict() {
  const { file, verification } = useMachine();
  const state = verification.state.value;
  const size = file.size === undefined ? '' : formatBytes(file.size);
  const { error } = file.inspection;
  const verdict = () => {
    if (state.kind === 'done') {
      const errors = state.result.findings.filter(({ severity }) => severity === 'error').length;
      if (!state.result.ok) return <b class="verdict is-bad">BAD: {plural(errors, 'error')}</b>;
      return <b class="verdict is-ok">OK</b>;
    }
    if (error !== undefined) return <b class="verdict is-bad">BAD</b>;
    return <span class="verdict">{state.kind === 'running' ? 'verifying…' : 'not verified'}</span>;
  };
  return (
    <span data-test="verdict">
      {verdict()} <span class="note">{size}</span>
    </span>
  );
}
