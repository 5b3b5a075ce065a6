/** A failure: what went wrong, where, and what to do, with a button that does it. */
import type { FindingCode, FindingReason, Place } from '../../../vm/migration-error.ts';
import { formatHex, printable } from '../../../words/format.ts';
import type { Failure, FileInput } from '../../protocol.ts';
import { helpFor, plainText } from '../finding-help.ts';
import { remedyFor, remedyOf } from '../remedies.ts';
import { currentInput, openInput } from '../session.ts';
import { RemedyButton } from './remedy-button.tsx';

const placeInFile = ({ offset, section }: Place) =>
  `at ${formatHex(offset)}${section === undefined ? '' : `, section ${printable(section)}`}`;

/** What the buttons of a failure work on. */
export interface RemedyTarget {
  /** The files that the failure is about. */
  input?: FileInput | undefined;
  open?: (input: FileInput) => void;
  /** Does what failed again. */
  retry?: (() => void) | undefined;
}

export function FailureNote({ failure, ...target }: { failure: Failure } & RemedyTarget) {
  const { code, place, detail, message, reason } = failure;
  return (
    <div class="failure" role="alert" data-test="failure">
      {code === undefined ? (
        <p class="what">{printable(message)}</p>
      ) : (
        <p class="what">
          <b class="severity-error">error</b> <code>{code}</code>: {printable(detail ?? message)}
          {place === undefined ? '' : ` (${placeInFile(place)})`}
        </p>
      )}
      {code === undefined ? null : <Help code={code} reason={reason} />}
      {code === undefined ? <KindRemedy failure={failure} /> : null}
      <FailureButton {...{ failure, ...target }} />
    </div>
  );
}

/** What to do about a failure without a code. */
function KindRemedy({ failure }: { failure: Failure }) {
  const remedy = remedyOf(failure);
  return remedy === undefined ? null : <p>{remedy.text}</p>;
}

/** The button that does what the remedy says. */
export function FailureButton({
  failure,
  ...target
}: { failure: Pick<Failure, 'kind' | 'code' | 'reason'> } & RemedyTarget) {
  const remedy = remedyOf(failure);
  const { input = currentInput(), open = (wanted) => void openInput(wanted), retry } = target;
  return remedy === undefined ? null : <RemedyButton {...{ remedy, input, open, retry }} />;
}

/** Explains a code. */
export function Help({ code, reason }: { code: FindingCode; reason: FindingReason | undefined }) {
  const { meaning = '', cause = '' } = helpFor(code) ?? {};
  return (
    <dl class="help">
      <dt>Meaning</dt>
      <dd>{plainText(meaning)}</dd>
      <dt>Usual cause</dt>
      <dd>{plainText(cause)}</dd>
      <dt>What to do</dt>
      <dd>{plainText(remedyFor(code, reason).text)}</dd>
    </dl>
  );
}
