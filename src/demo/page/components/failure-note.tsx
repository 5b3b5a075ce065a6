/** A failure: what went wrong, where, and what to do. */

import type { Place } from '../../../vm/migration-error.ts';
import { formatHex, printable } from '../../../words/format.ts';
import type { Failure } from '../../protocol.ts';
import { helpFor, plainText } from '../finding-help.ts';

/** What to do about failures that are not the fault of the file. */
const remedies: Partial<Record<Failure['kind'], string>> = {
  network:
    'Check that the server is running and allows this page to read from it (CORS). Or download the file and drop it here.',
  'no-space':
    "The browser's private storage is full or too small. Free some disk space, or use the vmferry command line.",
  unreadable: 'The file may have changed or been removed since you chose it. Please choose it again.',
  unsupported:
    'The page needs module workers and WebAssembly. Use a current Chromium, Firefox or Safari with both enabled, or the vmferry command line.',
  internal:
    'This is a bug in the page, not a problem with the file. Reload the page. The vmferry command line may still read the file.',
};

const placeInFile = ({ offset, section }: Place) =>
  `at ${formatHex(offset)}${section === undefined ? '' : `, section ${printable(section)}`}`;

export function FailureNote({ failure }: { failure: Failure }) {
  const { kind, code, place, detail, message } = failure;
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
      {code === undefined ? remedies[kind] === undefined ? null : <p>{remedies[kind]}</p> : <Help code={code} />}
    </div>
  );
}

/** Explains a code. */
export function Help({ code }: { code: string }) {
  const help = helpFor(code);
  if (help === undefined) return null;
  return (
    <dl class="help">
      <dt>Meaning</dt>
      <dd>{plainText(help.meaning)}</dd>
      <dt>Usual cause</dt>
      <dd>{plainText(help.cause)}</dd>
      <dt>What to do</dt>
      <dd>{plainText(help.remedy)}</dd>
    </dl>
  );
}
