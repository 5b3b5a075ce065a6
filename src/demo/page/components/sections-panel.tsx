/** The Sections panel: the sections of the stream as a proportional strip, and as a list. */
import { useState } from 'preact/hooks';
import type { InspectedSection } from '../../../tasks/inspect/inspect.ts';
import { formatBytes, formatCount, formatHex, printable } from '../../../words/format.ts';
import { bringIntoSight } from '../jump.ts';
import { useMachine } from './machine-context.ts';
import { useMore } from './more.tsx';

export function SectionsPanel() {
  const { file } = useMachine();
  const { sections, sectionsOmitted } = file.inspection;
  const [chosen, setChosen] = useState<InspectedSection | undefined>();
  const { shown, more } = useMore(sections, sections.indexOf(chosen as InspectedSection) + 1);
  const devices = sections.filter(({ kind }) => kind === 'full');
  return (
    <section class="panel" id="sections" aria-labelledby="sections-title">
      <h3 id="sections-title">Sections</h3>
      {sections.length === 0 ? (
        <p class="empty">No section was reached.</p>
      ) : (
        <>
          <Strip name="All sections" sections={sections} chosen={chosen} onChoose={setChosen} />
          {devices.length > 0 && devices.length < sections.length ? (
            <Strip name="Devices only" sections={devices} chosen={chosen} onChoose={setChosen} />
          ) : null}
          <details open={chosen !== undefined}>
            <summary>List of {formatCount(sections.length + sectionsOmitted)} sections</summary>
            <SectionTable sections={shown} chosen={chosen} />
            {more}
            {sectionsOmitted > 0 ? <p class="note">{formatCount(sectionsOmitted)} more are not listed.</p> : null}
          </details>
        </>
      )}
    </section>
  );
}

interface StripProps {
  name: string;
  sections: readonly InspectedSection[];
  chosen: InspectedSection | undefined;
  onChoose(section: InspectedSection): void;
}

/** A part of the strip: one section, or several neighbours that are too small to be visible alone. */
interface Piece {
  sections: InspectedSection[];
  length: number;
}

/** The smallest share of the strip, about three pixels. */
const finest = 1 / 250;

function Strip({ name, sections, chosen, onChoose }: StripProps) {
  const machine = useMachine();
  const total = sections.reduce((sum, { length }) => sum + length, 0);
  const pieces = gather(sections, total * finest);
  const { offset: first = 0, source } = sections[0] ?? {};
  const choose = (section: InspectedSection) => {
    onChoose(section);
    machine.showFile(
      { offset: section.offset, ...(section.source === undefined ? {} : { source: section.source }) },
      section.length,
    );
  };
  return (
    <div class="strip-row">
      <span class="note">
        {name}, {formatBytes(total)} from {formatHex(first)}
        {source === undefined ? '' : ` of ${printable(source)}`}
      </span>
      <div class="strip" data-test="strip">
        {pieces.map((piece, i) => {
          const section = piece.sections[0] as InspectedSection;
          const label = describePiece(piece);
          return (
            <button
              type="button"
              key={i}
              class={`${section.kind === 'full' ? 'is-device' : 'is-iterable'}${piece.sections.includes(chosen as InspectedSection) ? ' is-chosen' : ''}`}
              style={{ flexGrow: piece.length }}
              title={label}
              aria-label={label}
              onClick={() => choose(section)}
            >
              {piece.length > total / 12 ? <span aria-hidden="true">{printable(section.name)}</span> : null}
            </button>
          );
        })}
      </div>
    </div>
  );
}

function gather(sections: readonly InspectedSection[], least: number): Piece[] {
  const pieces: Piece[] = [];
  for (const section of sections) {
    const last = pieces.at(-1);
    const isOfLast = last !== undefined && last.sections[0]?.kind === section.kind;
    if (isOfLast && (last.length < least || section.length < least)) {
      last.sections.push(section);
      last.length += section.length;
    } else {
      pieces.push({ sections: [section], length: section.length });
    }
  }
  return pieces;
}

function describePiece({ sections, length }: Piece): string {
  const [section] = sections as [InspectedSection];
  const at = `${formatHex(section.offset)}, ${formatBytes(length)}`;
  if (sections.length > 1) {
    return `${sections.length} sections from ${printable(section.name)} to ${printable(sections.at(-1)?.name ?? '')}, at ${at}`;
  }
  return `${printable(section.name)} ${section.kind} at ${at}`;
}

function SectionTable({
  sections,
  chosen,
}: {
  sections: readonly InspectedSection[];
  chosen: InspectedSection | undefined;
}) {
  const machine = useMachine();
  return (
    <div class="table-frame">
      <table>
        <caption class="visually-hidden">Sections in the order of the file</caption>
        <thead>
          <tr>
            <th scope="col">Offset</th>
            <th scope="col" class="number">
              Bytes
            </th>
            <th scope="col">Kind</th>
            <th scope="col" class="number">
              Id
            </th>
            <th scope="col">Name</th>
            <th scope="col" class="number">
              Version
            </th>
          </tr>
        </thead>
        <tbody>
          {sections.map((section) => (
            <tr key={`${section.source} ${section.offset}`} class={section === chosen ? 'is-chosen' : ''}>
              <td>
                <button
                  type="button"
                  class="link mono"
                  onClick={() => {
                    const { source, offset, length } = section;
                    machine.showFile({ offset, ...(source === undefined ? {} : { source }) }, length);
                    bringIntoSight('bytes');
                  }}
                >
                  {formatHex(section.offset)}
                </button>
              </td>
              <td class="number">{formatCount(section.length)}</td>
              <td>{section.kind}</td>
              <td class="number">{section.id}</td>
              <td>
                {printable(section.name)}
                {section.instanceId === 0 ? '' : `#${section.instanceId}`}
              </td>
              <td class="number">{section.versionId}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
