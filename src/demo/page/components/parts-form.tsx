/** A form for files that do not say how they belong together. The user says what each file is. */
import { useState } from 'preact/hooks';
import type { GuessedPart, PartKind, PartRole } from '../../../read/sort-parts.ts';
import { formatBytes, printable } from '../../../words/format.ts';
import type { FileInput } from '../../protocol.ts';

const kindNames: Record<PartKind, string> = {
  stream: 'a separate stream',
  channel: 'a multifd channel',
  recovery: 'a postcopy recovery',
  preempt: 'a preempt channel',
  'return-path': 'a return path',
  unknown: 'an unknown file',
};

const roleNames: Record<PartRole, string> = {
  stream: 'main stream',
  channel: 'multifd channel',
  recovery: 'recovery after an interruption',
  preempt: 'preempt channel',
  'return-path': 'return path',
  none: 'ignore',
};

interface Props {
  input: FileInput;
  parts: readonly GuessedPart[];
  onOpen(input: FileInput): void;
}

export function PartsForm({ input, parts, onOpen }: Props) {
  const [rows, setRows] = useState(parts);
  const files = 'files' in input ? input.files : [];
  const streams = rows.filter(({ role }) => role === 'stream').length;
  const move = (from: number, to: number) => {
    const next = [...rows];
    next.splice(to, 0, ...next.splice(from, 1));
    setRows(next);
  };
  const choose = (at: number, role: PartRole) => setRows(rows.map((row, i) => (i === at ? { ...row, role } : row)));
  const open = (event: Event) => {
    event.preventDefault();
    const order = rows.map(({ index }) => index);
    const roles = rows.map(({ role }) => role);
    // One file whose parts are unclear is a zip archive.
    if (files.length === 1) onOpen({ ...input, files, roles, order });
    else onOpen({ ...input, files: order.map((index) => files[index] as File), roles });
  };
  return (
    <form class="parts-form" onSubmit={open} data-test="parts">
      {reasonsOf(parts).map((reason) => (
        <p key={reason}>{reason}</p>
      ))}
      <ol>
        {rows.map(({ index, name, kind, role, size }, i) => (
          <li key={index}>
            <span class="file-name">{printable(name)}</span>
            <span class="note">
              {size === undefined ? '' : `${formatBytes(size)}, `}looks like {kindNames[kind]}
            </span>
            <span class="row">
              <select
                value={role}
                aria-label={`Role of ${name}`}
                onChange={({ currentTarget }) => choose(i, currentTarget.value as PartRole)}
              >
                {Object.entries(roleNames).map(([value, text]) => (
                  <option key={value} value={value}>
                    {text}
                  </option>
                ))}
              </select>
              <button
                type="button"
                aria-label={`Move ${name} earlier`}
                disabled={i === 0}
                onClick={() => move(i, i - 1)}
              >
                ↑
              </button>
              <button
                type="button"
                aria-label={`Move ${name} later`}
                disabled={i === rows.length - 1}
                onClick={() => move(i, i + 1)}
              >
                ↓
              </button>
            </span>
          </li>
        ))}
      </ol>
      <OpenButton streams={streams} />
    </form>
  );
}

/** `streams`: the number of files that are chosen as the main stream. */
function OpenButton({ streams }: { streams: number }) {
  return (
    <div class="row">
      <button type="submit" class="primary" disabled={streams !== 1}>
        Open these together
      </button>
      {streams === 1 ? null : <span class="wrong">Exactly one file must be the main stream.</span>}
    </div>
  );
}

/** Why the user must be asked. */
function reasonsOf(parts: readonly GuessedPart[]): string[] {
  const count = (...kinds: PartKind[]) => parts.filter(({ kind }) => kinds.includes(kind)).length;
  const reasons: string[] = [];
  if (count('stream', 'unknown') > 1) {
    reasons.push(
      'These files seem to belong to more than one migration. Open one migration first. You can then compare it with another one.',
    );
  }
  if (count('recovery') > 1)
    reasons.push('The recoveries do not say in which order they happened. Put the first one first.');
  if (count('preempt') > 1) {
    reasons.push(
      'Each connection has its own preempt channel. The channels do not say which one was first. Put them in the order of the connections.',
    );
  }
  return reasons;
}
