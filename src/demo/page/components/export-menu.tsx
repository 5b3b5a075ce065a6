/** What can be saved: a page, a block, the facts as JSON, the map as a picture, and the machine in another form. */
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { formatBytes, formatHex, printable } from '../../../words/format.ts';
import type { CallOptions, OutputFormat, Saved, Target } from '../../protocol.ts';
import { announce } from '../announce.ts';
import type { Machine } from '../machine.ts';
import { chooseTarget, download } from '../save.ts';
import { Task } from '../task.ts';
import { useMachine } from './machine-context.ts';
import { TaskLine } from './task-line.tsx';

interface Done {
  name: string;
  bytes: number;
  /** How it was found to be, where it was read back. */
  isChecked: boolean;
}

export function ExportMenu() {
  const machine = useMachine();
  const { file, map } = machine;
  const task = useMemo(() => new Task<Done>(), []);
  const menu = useRef<HTMLDetailsElement>(null);
  useEffect(() => () => task.cancel(), [task]);
  useClosing(menu);
  // A file in an archive is called ARCHIVE#MEMBER.
  const ownName = file.name.split(/[#/]/).at(-1) ?? '';
  const stem = ownName.replace(/\.(bin|migration|stream|mapped-ram|img|save|gz|zst|xz)$/, '') || 'guest';
  const block = map.view;
  const blockName = forFileName(block?.idstr ?? '');

  /** Writes something large to where the reader says. */
  const write = async (name: string, work: (target: Target, options: CallOptions) => Promise<Saved>) => {
    menu.current?.removeAttribute('open');
    const target = await chooseTarget(name);
    if (target === undefined) return;
    const done = await task.run(async (options) => {
      const saved = await work(target, options);
      if (saved.file !== undefined) {
        download(saved.file, name);
        // The download reads it for a while; it goes when the file is closed, too.
        setTimeout(() => void machine.viewer.release(saved.ticket).catch(() => {}), 600_000);
      }
      return { name, bytes: saved.bytes, isChecked: saved.verification?.ok === true };
    });
    if (done !== undefined) announce(`saved ${done.name}`);
  };
  const give = async (name: string, content: () => Promise<Blob>) => {
    menu.current?.removeAttribute('open');
    await task.run(async () => {
      const blob = await content();
      download(blob, name);
      return { name, bytes: blob.size, isChecked: false };
    });
  };
  const convert = (format: OutputFormat) => {
    const name = format === 'multifd' ? `${stem}.multifd.zip` : `${stem}.${format}`;
    const query = { file: file.id, format, name };
    void write(name, (target, options) => machine.viewer.convert({ ...query, target }, options));
  };
  const page = block === undefined ? 0 : map.cursor.value * block.pageSize;
  return (
    <div class="export">
      <details ref={menu} class="menu" data-test="export">
        <summary>Save…</summary>
        <div class="menu-items">
          {block === undefined ? null : (
            <>
              <button
                type="button"
                onClick={() => void give(`${stem}.${blockName}.${formatHex(page)}.page`, () => pageBytes(machine))}
              >
                Page {formatHex(page)} of {printable(block.idstr)}
              </button>
              <button
                type="button"
                onClick={() => {
                  const query = { file: file.id, block: block.index, name: `${stem}.${blockName}.raw` };
                  void write(query.name, (target, options) =>
                    machine.viewer.exportBlock({ ...query, target }, options),
                  );
                }}
              >
                Block {printable(block.idstr)}, {formatBytes(block.usedLength)}
              </button>
              <button type="button" onClick={() => void give(`${stem}.${blockName}.png`, mapPicture)}>
                RAM map as PNG
              </button>
            </>
          )}
          {file.blocks.length < 2 ? null : (
            <button
              type="button"
              onClick={() => {
                const query = { file: file.id, name: `${stem}.blocks.zip` };
                void write(query.name, (target, options) => machine.viewer.exportBlocks({ ...query, target }, options));
              }}
            >
              All blocks as a .zip
            </button>
          )}
          <button type="button" onClick={() => void give(`${stem}.json`, async () => factsAsJson(machine))}>
            Facts and findings as JSON
          </button>
          {file.inspection.error === null ? (
            <>
              <button type="button" onClick={() => convert('mapped-ram')}>
                Machine as a mapped-ram file
              </button>
              <button type="button" onClick={() => convert('stream')}>
                Machine as a stream
              </button>
              <button type="button" onClick={() => convert('multifd')}>
                Machine as a multifd set in a .zip
              </button>
            </>
          ) : null}
        </div>
      </details>
      <Outcome task={task} />
    </div>
  );
}

/** Most characters that a name of a block has in the name of a file. */
const longestName = 80;

/** A name from a file as part of a file's name: without what is not allowed in those, and not too long. */
const forFileName = (name: string) => name.replace(/[/\\:*?"<>|\p{Cc}\p{Cf}]/gu, '_').slice(0, longestName);

function Outcome({ task }: { task: Task<Done> }) {
  const state = task.state.value;
  if (state.kind !== 'done') return <TaskLine task={task} what="saving" />;
  const { name, bytes, isChecked } = state.result;
  return (
    <span class="note" data-test="saved">
      {printable(name)}: {formatBytes(bytes)}
      {isChecked ? ', read back and verified' : ''}
    </span>
  );
}

async function pageBytes({ viewer, file, map }: Machine): Promise<Blob> {
  const { index, pageSize } = map.view ?? { index: 0, pageSize: 0 };
  const query = { file: file.id, block: index, offset: map.cursor.value * pageSize, length: pageSize };
  const { bytes } = await viewer.read(query);
  return new Blob([bytes as Uint8Array<ArrayBuffer>]);
}

/** What `vmferry inspect --json` prints, and the verification beside it. */
function factsAsJson({ file, verification }: Machine): Blob {
  const json = { ...file.inspection, verification: verification.result ?? null };
  return new Blob([`${JSON.stringify(json, null, 2)}\n`], { type: 'application/json' });
}

async function mapPicture(): Promise<Blob> {
  const canvas = document.querySelector<HTMLCanvasElement>('#map canvas');
  if (canvas === null) throw new Error('there is no map');
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, 'image/png'));
  if (blob === null) throw new Error('the browser gave no picture of the map');
  return blob;
}

/** A menu closes with Escape, and when something else is clicked. */
function useClosing(menu: { current: HTMLDetailsElement | null }): void {
  useEffect(() => {
    const close = (event: Event) => {
      const element = menu.current;
      if (element === null || !element.open) return;
      if (event instanceof KeyboardEvent) {
        if (event.key !== 'Escape') return;
        element.querySelector('summary')?.focus();
      } else if (element.contains(event.target as Node)) return;
      element.open = false;
    };
    document.addEventListener('keydown', close);
    document.addEventListener('pointerdown', close);
    return () => {
      document.removeEventListener('keydown', close);
      document.removeEventListener('pointerdown', close);
    };
  });
}
