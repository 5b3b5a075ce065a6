/** The Save menu: a page, blocks, the facts as JSON, the map as a picture, and the machine in another format. */
import { useRef } from 'preact/hooks';
import { jsonReplacer, jsonVersion } from '../../../tasks/json.ts';
import { formatBytes, formatHex, printable } from '../../../words/format.ts';
import type { BlockView, OutputFormat } from '../../protocol.ts';
import { forFileName, stemOf } from '../file-names.ts';
import type { Machine } from '../machine.ts';
import { useMachine } from './machine-context.ts';
import { useMenuClosing } from './menu-closing.ts';
import { type Saving, SavingLine, useSaving } from './saving.tsx';

/** The formats of a whole machine: extension and name. */
const formats: Record<OutputFormat, [extension: string, name: string]> = {
  'mapped-ram': ['mapped-ram', 'a mapped-ram file'],
  stream: ['stream', 'a stream'],
  multifd: ['multifd.zip', 'a multifd set in a .zip'],
};

export function ExportMenu() {
  const { file, map } = useMachine();
  const menu = useRef<HTMLDetailsElement>(null);
  const saving = useSaving(() => menu.current?.removeAttribute('open'));
  useMenuClosing(menu);
  return (
    <div class="export">
      <details ref={menu} class="menu" data-test="export">
        <summary>Save…</summary>
        <div class="menu-items">
          {map.view === undefined ? null : <BlockItems block={map.view} saving={saving} />}
          {file.blocks.length < 2 ? null : <AllBlocksItem saving={saving} />}
          <FactsItem saving={saving} />
          {file.inspection.error === undefined ? <MachineItems saving={saving} /> : null}
        </div>
      </details>
      <SavingLine saving={saving} />
    </div>
  );
}

/** Items for the block on the map, and for the page under the cursor. */
function BlockItems({ block, saving }: { block: BlockView; saving: Saving }) {
  const machine = useMachine();
  const { viewer, file, map } = machine;
  const { index, idstr, pageSize, usedLength } = block;
  const stem = `${stemOf(file.name)}.${forFileName(idstr)}`;
  const page = formatHex(map.cursor.value * pageSize);
  const writeBlock = () => {
    const query = { file: file.id, block: index, name: `${stem}.raw` };
    void saving.write(query.name, (target, options) => viewer.exportBlock({ ...query, target }, options));
  };
  return (
    <>
      <button type="button" onClick={() => void saving.give(`${stem}.${page}.page`, () => pageBytes(machine, block))}>
        Page {page} of {printable(idstr)}
      </button>
      <button type="button" onClick={writeBlock}>
        Block {printable(idstr)}, {formatBytes(usedLength)}
      </button>
      <button type="button" onClick={() => void saving.give(`${stem}.png`, mapPicture)}>
        RAM map as PNG
      </button>
    </>
  );
}

function AllBlocksItem({ saving }: { saving: Saving }) {
  const { viewer, file } = useMachine();
  const write = () => {
    const query = { file: file.id, name: `${stemOf(file.name)}.blocks.zip` };
    void saving.write(query.name, (target, options) => viewer.exportBlocks({ ...query, target }, options));
  };
  return (
    <button type="button" onClick={write}>
      All blocks as a .zip
    </button>
  );
}

function FactsItem({ saving }: { saving: Saving }) {
  const machine = useMachine();
  const name = `${stemOf(machine.file.name)}.json`;
  return (
    <button type="button" onClick={() => void saving.give(name, async () => factsAsJson(machine))}>
      Facts and findings as JSON
    </button>
  );
}

/** Items for the whole machine in each format. */
function MachineItems({ saving }: { saving: Saving }) {
  const { viewer, file } = useMachine();
  const convert = (format: OutputFormat, extension: string) => {
    const query = { file: file.id, format, name: `${stemOf(file.name)}.${extension}` };
    void saving.write(query.name, (target, options) => viewer.convert({ ...query, target }, options));
  };
  return (
    <>
      {Object.entries(formats).map(([format, [extension, name]]) => (
        <button key={format} type="button" onClick={() => convert(format as OutputFormat, extension)}>
          Machine as {name}
        </button>
      ))}
    </>
  );
}

async function pageBytes({ viewer, file, map }: Machine, { index, pageSize }: BlockView): Promise<Blob> {
  const query = { file: file.id, block: index, offset: map.cursor.value * pageSize, length: pageSize };
  const { bytes } = await viewer.read(query);
  return new Blob([bytes as Uint8Array<ArrayBuffer>]);
}

/** The inspection as JSON, together with the verification. */
function factsAsJson({ file, verification }: Machine): Blob {
  const json = { jsonVersion, ...file.inspection, verification: verification.result };
  return new Blob([`${JSON.stringify(json, jsonReplacer, 2)}\n`], { type: 'application/json' });
}

async function mapPicture(): Promise<Blob> {
  const canvas = document.querySelector<HTMLCanvasElement>('#map canvas');
  if (canvas === null) throw new Error('there is no map');
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, 'image/png'));
  if (blob === null) throw new Error('the browser could not make a picture of the map');
  return blob;
}
