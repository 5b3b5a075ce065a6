/** The Findings panel: problems in the file. A click on a place shows the bytes there. */
import type { CountedFinding } from '../../../read/finding-log.ts';
import type { Place } from '../../../vm/migration-error.ts';
import { formatCount, formatHex, plural, printable } from '../../../words/format.ts';
import { bringIntoSight } from '../jump.ts';
import { FailureButton, Help } from './failure-note.tsx';
import { useMachine } from './machine-context.ts';
import { useMore } from './more.tsx';
import { TaskLine } from './task-line.tsx';

export function FindingsPanel() {
  const machine = useMachine();
  const { verification, file } = machine;
  const state = verification.state.value;
  const { inspection } = file;
  // Until the file is verified, these are the findings from opening it.
  const seen = [
    ...(inspection.error === undefined ? [] : [{ ...inspection.error, count: 1 } as CountedFinding]),
    ...inspection.findings,
  ];
  const findings = state.kind === 'done' ? state.result.findings : seen;
  const { shown, more } = useMore(findings);
  return (
    <section class="panel" id="findings" aria-labelledby="findings-title">
      <div class="panel-head">
        <h3 id="findings-title">Findings</h3>
        {state.kind === 'idle' || state.kind === 'failed' ? (
          <button type="button" onClick={() => void machine.verify()}>
            Verify the whole file
          </button>
        ) : null}
      </div>
      <TaskLine task={verification} what="verifying" retry={() => void machine.verify()} />
      {findings.length > 0 ? (
        <ul class="findings" data-test="findings">
          {shown.map((finding) => (
            <Finding key={`${finding.code} ${finding.place.offset} ${finding.message}`} finding={finding} />
          ))}
          {more === null ? null : <li>{more}</li>}
        </ul>
      ) : state.kind === 'done' ? (
        <p class="empty">
          No problems found in {formatCount(state.result.pageRecords)} page records and{' '}
          {plural(state.result.sections, 'section')}.
        </p>
      ) : (
        <p class="empty">No problems found so far. The file has not been verified yet.</p>
      )}
    </section>
  );
}

function Finding({ finding }: { finding: CountedFinding }) {
  const { severity, code, message, place, last, count, reason } = finding;
  return (
    <li>
      <p>
        <b class={`severity-${severity}`}>{severity}</b> <code>{code}</code>: {printable(message)}{' '}
        <Where place={place} />
        {count > 1 ? (
          <span>
            {' '}
            ({formatCount(count)} times
            {last === undefined ? '' : `, last at ${formatHex(last.offset)}`})
          </span>
        ) : null}
      </p>
      <details>
        <summary>What this means</summary>
        <Help code={code} reason={reason} />
      </details>
      {severity === 'info' ? null : (
        <FailureButton failure={{ kind: 'bad-input', code, ...(reason === undefined ? {} : { reason }) }} />
      )}
    </li>
  );
}

/** A place in the file. A click shows the bytes there. */
function Where({ place }: { place: Place }) {
  const machine = useMachine();
  const { file } = machine;
  const { block, page, channel, section, source, offset } = place;
  const blockIndex = file.blocks.findIndex(({ idstr }) => idstr === block);
  const show = () => {
    machine.showFile(place, 1);
    if (blockIndex >= 0 && page !== undefined) machine.map.select(blockIndex, page);
    bringIntoSight('bytes');
  };
  const elsewhere = source !== file.name && channel === undefined ? `in ${printable(source)} ` : '';
  return (
    <>
      ({elsewhere}
      <button type="button" class="link" onClick={show} title="Show these bytes">
        at {formatHex(offset)}
      </button>
      {channel === undefined ? '' : ` of channel ${channel}`}
      {section === undefined ? '' : `, section ${printable(section)}`}
      {block === undefined ? '' : `, block ${printable(block)}`}
      {page === undefined ? '' : `, page ${formatCount(page)}`})
    </>
  );
}
