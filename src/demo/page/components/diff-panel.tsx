/** The Differences panel: what changed since an earlier file of the same machine. */

import type { DeviceDiff } from '../../../devices/device-diff.ts';
import type { VmDiff } from '../../../tasks/diff/diff.ts';
import type { BlockDiff } from '../../../tasks/diff/diff-ram.ts';
import { type ComparedNames, describeBlock, describeChange, describeFact } from '../../../words/diff-words.ts';
import { formatBytes, formatCount, formatHex, plural, printable } from '../../../words/format.ts';
import { bringIntoSight } from '../jump.ts';
import type { Comparison } from '../machine.ts';
import { FileButton } from './file-drop.tsx';
import { useMachine } from './machine-context.ts';
import { useMore } from './more.tsx';
import { PartsForm } from './parts-form.tsx';
import { TaskLine } from './task-line.tsx';

/** The names of the two files in sentences. */
const theFiles: ComparedNames = ['the earlier file', 'this file'];

/** Ranges of pages that are listed per block. */
const listedRanges = 24;

export function DiffPanel() {
  const machine = useMachine();
  const { comparison, earlier, file } = machine;
  const state = comparison.state.value;
  const result = state.kind === 'done' ? state.result : undefined;
  const parts = state.kind === 'failed' ? state.failure.parts : undefined;
  const { compared } = machine;
  return (
    <section class="panel" id="differences" aria-labelledby="differences-title">
      <div class="panel-head">
        <h3 id="differences-title">Differences</h3>
        {result === undefined ? null : (
          <button type="button" onClick={() => machine.stopComparing()}>
            Stop comparing
          </button>
        )}
      </div>
      {state.kind === 'idle' || state.kind === 'failed' ? (
        <>
          <p>
            Choose an earlier file of this machine, or drop it here. The page then shows which pages and which fields of
            devices changed since. The file can have another format.
          </p>
          <div class="row">
            <FileButton
              label="Compare with a file…"
              test="earlier"
              onFiles={(files) => void machine.compare(async () => ({ files }))}
            />
            {earlier === undefined ? null : (
              <button type="button" class="primary" onClick={() => void machine.compare(earlier)}>
                Compare with the earlier sample
              </button>
            )}
          </div>
        </>
      ) : null}
      {parts === undefined || compared === undefined ? (
        <TaskLine
          task={comparison}
          what="comparing"
          input={compared}
          open={(input) => void machine.compare(async () => input)}
          retry={() => void machine.compareAgain()}
        />
      ) : (
        <PartsForm input={compared} parts={parts} onOpen={(chosen) => void machine.compare(async () => chosen)} />
      )}
      {result === undefined ? null : <Differences comparison={result} name={file.name} />}
    </section>
  );
}

function Differences({ comparison: { base, diff }, name }: { comparison: Comparison; name: string }) {
  const { same, facts, ram, devices, notCompared } = diff;
  return (
    <div data-test="diff">
      <p>
        <span class="file-name">{printable(base.name)}</span> → <span class="file-name">{printable(name)}</span>:{' '}
        {same ? <b class="verdict is-ok">no differences</b> : <b class="verdict is-different">different</b>}
      </p>
      {facts.map((fact) => (
        <p key={fact.what}>{describeFact(fact)}</p>
      ))}
      {ram === undefined ? null : <RamDifferences ram={ram} />}
      {devices === undefined ? null : <DeviceDifferences devices={devices} />}
      {notCompared.length > 0 ? <p class="note">Not compared: {printable(notCompared.join(', '))}</p> : null}
    </div>
  );
}

function RamDifferences({ ram }: { ram: NonNullable<VmDiff['ram']> }) {
  const { shown, more } = useMore(ram.blocks);
  return (
    <>
      <section
        class="table-frame"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: on narrow screens the keyboard must be able to scroll it
        tabIndex={0}
        aria-label="Pages of each block"
      >
        <table>
          <caption class="visually-hidden">Pages of each block by kind of difference</caption>
          <thead>
            <tr>
              {['Block', 'Pages', 'Same', 'Changed', 'To zero', 'To data', 'Absent before', 'Absent now'].map(
                (name, i) => (
                  <th key={name} scope="col" class={i === 0 ? '' : 'number'}>
                    {name}
                  </th>
                ),
              )}
            </tr>
          </thead>
          <tbody>
            {shown.map((block) => (
              <tr key={block.idstr}>
                <th scope="row">{printable(block.idstr)}</th>
                {countsOf(block).map((count, i) => (
                  <td key={i} class={count === 0 || count === undefined ? 'number is-none' : 'number'}>
                    {count === undefined ? '-' : formatCount(count)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {more}
      <NamesOnlyIn where={theFiles[0]} names={ram.onlyOld.map(nameAndLength)} />
      <NamesOnlyIn where={theFiles[1]} names={ram.onlyNew.map(nameAndLength)} />
      {shown.map((block) => {
        const note = describeBlock(block, theFiles);
        return note === undefined ? null : <p key={block.idstr}>{note}</p>;
      })}
      {shown.map((block) => (
        <Ranges key={block.idstr} block={block} />
      ))}
    </>
  );
}

const nameAndLength = ({ idstr, length }: { idstr: string; length: number }) => `${idstr} (${formatBytes(length)})`;

/** Pages of a block in the order of the table. Undefined if the number is not known. */
function countsOf({ pages, same, changes, notCompared, oldAbsent, newAbsent }: BlockDiff): (number | undefined)[] {
  const { changed, becameZero, becameData } = changes;
  const compared = [pages, same, changed, becameZero, becameData].map((count) =>
    notCompared === undefined ? count : undefined,
  );
  return [...compared, oldAbsent, newAbsent];
}

function NamesOnlyIn({ where, names }: { where: string; names: string[] }) {
  const { shown, more } = useMore(names);
  if (names.length === 0) return null;
  return (
    <p class="names">
      Only in {where}: {shown.map(printable).join(', ')} {more}
    </p>
  );
}

/** The ranges of pages that differ. A click shows their bytes. */
function Ranges({ block }: { block: BlockDiff }) {
  const machine = useMachine();
  const { idstr, ranges, pageSize } = block;
  const index = machine.file.blocks.findIndex((each) => each.idstr === idstr);
  if (ranges.length === 0) return null;
  return (
    <div class="ranges">
      <span>{printable(idstr)}</span>
      <ul>
        {ranges.slice(0, listedRanges).map(({ first, count, changed }) => (
          <li key={first}>
            <button
              type="button"
              class="link"
              onClick={() => {
                machine.showRam(index, first * pageSize);
                bringIntoSight('bytes');
              }}
            >
              {formatHex(first * pageSize)}
            </button>{' '}
            {changed === count ? plural(count, 'page') : `${formatCount(changed)} of ${plural(count, 'page')}`}
          </li>
        ))}
        {ranges.length > listedRanges ? <li>and {formatCount(ranges.length - listedRanges)} more ranges</li> : null}
      </ul>
    </div>
  );
}

function DeviceDifferences({ devices }: { devices: NonNullable<VmDiff['devices']> }) {
  const { same, changed, removed, added } = devices;
  const nameOf = ({ name, instanceId }: { name: string; instanceId: number }) => `${name}#${instanceId}`;
  const { shown, more } = useMore(changed);
  return (
    <>
      <p>
        {plural(same, 'device')} with the same state
        {changed.length > 0 ? `, ${formatCount(changed.length)} with a different state` : ''}.
      </p>
      <NamesOnlyIn where={theFiles[0]} names={removed.map(nameOf)} />
      <NamesOnlyIn where={theFiles[1]} names={added.map(nameOf)} />
      {shown.map((device) => (
        <DeviceChanges key={`${device.name} ${device.instanceId}`} device={device} />
      ))}
      {more}
    </>
  );
}

function DeviceChanges({ device }: { device: DeviceDiff }) {
  const { name, instanceId, changes, changeCount, problem } = device;
  return (
    <details class="device-changes">
      <summary>
        {printable(`${name}#${instanceId}`)} <span class="note">{plural(changeCount, 'difference')}</span>
      </summary>
      {problem === undefined ? null : <p class="note">compared byte by byte: {printable(problem)}</p>}
      <ul class="mono">
        {changes.map((change, i) => (
          <li key={i}>{describeChange(change, theFiles)}</li>
        ))}
        {changeCount > changes.length ? <li>and {formatCount(changeCount - changes.length)} more</li> : null}
      </ul>
    </details>
  );
}
