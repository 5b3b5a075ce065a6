/** Searches RAM for text, bytes or a regular expression. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import { formatCount, formatHex, plural, printable } from '../../../words/format.ts';
import { asciiBytes, hexBytes } from '../../../words/hex-dump.ts';
import type { SearchMatch, SearchQuery, SearchResult } from '../../protocol.ts';
import { announce } from '../announce.ts';
import { Task } from '../task.ts';
import { useMachine } from './machine-context.ts';
import { TaskLine } from './task-line.tsx';

type Kind = SearchQuery['kind'];

const kinds: Record<Kind, string> = { text: 'text', utf16: 'UTF-16', hex: 'hex', regex: 'regular expression' };

/** Matches that are listed at most. */
const limit = 500;

export function SearchPanel() {
  const { viewer, file } = useMachine();
  const task = useMemo(() => new Task<SearchResult>(), []);
  useEffect(() => () => task.cancel(), [task]);
  const [pattern, setPattern] = useState('');
  const [kind, setKind] = useState<Kind>('text');
  const [ignoreCase, setIgnoreCase] = useState(false);
  const [matches, setMatches] = useState<SearchMatch[] | undefined>();

  const search = async (event?: Event) => {
    event?.preventDefault();
    if (pattern === '') return;
    setMatches([]);
    const query = { file: file.id, pattern, kind, limit, ...(kind === 'hex' ? {} : { ignoreCase }) };
    const result = await task.run((options) =>
      viewer.search(query, { ...options, onPart: (part) => setMatches((found = []) => [...found, ...part]) }),
    );
    if (result !== undefined) announce(`${plural(result.matches, 'match')}`.replace(/tchs$/, 'tches'));
  };
  if (file.blocks.length === 0) return null;
  const result = task.state.value.kind === 'done' ? task.state.value.result : undefined;
  return (
    <search class="search">
      <form class="row" aria-label="Search in RAM" onSubmit={(event) => void search(event)}>
        <label class="grow">
          <span>Find in RAM</span>
          <input
            type="text"
            value={pattern}
            placeholder={kind === 'hex' ? 'de ad ?? e?' : kind === 'regex' ? 'ferry \\d+' : 'text'}
            spellcheck={false}
            autocomplete="off"
            data-test="search"
            onInput={({ currentTarget }) => setPattern(currentTarget.value)}
          />
        </label>
        <label>
          <span>Kind</span>
          <select value={kind} onChange={({ currentTarget }) => setKind(currentTarget.value as Kind)}>
            {Object.entries(kinds).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label class="check">
          <input
            type="checkbox"
            checked={ignoreCase}
            disabled={kind === 'hex'}
            onChange={({ currentTarget }) => setIgnoreCase(currentTarget.checked)}
          />
          <span>ignore case</span>
        </label>
        <button type="submit">Find</button>
      </form>
      <TaskLine task={task} what="searching" retry={() => void search()} />
      {matches === undefined ? null : <Matches matches={matches} result={result} />}
    </search>
  );
}

function Matches({ matches, result }: { matches: SearchMatch[]; result: SearchResult | undefined }) {
  const machine = useMachine();
  if (matches.length === 0) return result === undefined ? null : <p class="empty">Not found in any RAM block.</p>;
  return (
    <>
      <ol class="matches" data-test="matches" aria-label="Matches">
        {matches.map((match) => (
          <li key={`${match.block} ${match.offset}`}>
            <button
              type="button"
              class="link mono"
              onClick={() => machine.showRam(match.block, match.offset, match.bytes.length)}
            >
              {printable(machine.file.blocks[match.block]?.idstr ?? '')} {formatHex(match.offset)}
            </button>{' '}
            <span class="mono excerpt" title={hexBytes(match.bytes.subarray(0, 32))}>
              {asciiBytes(match.before)}
              <mark>{asciiBytes(match.bytes.subarray(0, 64))}</mark>
              {asciiBytes(match.after)}
            </span>
          </li>
        ))}
      </ol>
      {result === undefined ? null : (
        <p class="note">
          {formatCount(result.matches)} {result.matches === 1 ? 'match' : 'matches'}
          {result.limited ? `. There may be more: the search stopped after ${formatCount(limit)}.` : ''}
        </p>
      )}
    </>
  );
}
