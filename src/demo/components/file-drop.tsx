/** Where files are dropped or chosen. A file may be dropped anywhere on the page. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { openInput } from '../session.ts';

export function FileDrop() {
  const input = useRef<HTMLInputElement>(null);
  const isOver = useFilesOverPage((files) => void openInput({ files }));
  return (
    <section class={`panel file-drop${isOver ? ' is-over' : ''}`}>
      <h2>Drop a migration file here</h2>
      <p>or choose it. It is not uploaded: the page reads it in this browser.</p>
      <input
        ref={input}
        type="file"
        multiple
        class="visually-hidden"
        tabIndex={-1}
        aria-label="Migration files"
        data-test="files"
        onChange={({ currentTarget }) => take(currentTarget, (files) => void openInput({ files }))}
      />
      <button type="button" class="primary" onClick={() => input.current?.click()}>
        Choose files…
      </button>
    </section>
  );
}

/** A button that asks for files. */
export function FileButton(props: { label: string; onFiles(files: File[]): void; test: string }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        multiple
        class="visually-hidden"
        tabIndex={-1}
        aria-label={props.label}
        data-test={props.test}
        onChange={({ currentTarget }) => take(currentTarget, props.onFiles)}
      />
      <button type="button" onClick={() => input.current?.click()}>
        {props.label}
      </button>
    </>
  );
}

function take(input: HTMLInputElement, onFiles: (files: File[]) => void): void {
  const files = [...(input.files ?? [])];
  // So that the same file can be chosen again.
  input.value = '';
  if (files.length > 0) onFiles(files);
}

/** Takes files that are dropped anywhere; whether some are being dragged over the page. */
export function useFilesOverPage(onFiles: (files: File[]) => void): boolean {
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    const over = (event: DragEvent) => {
      if (event.dataTransfer?.types.includes('Files') !== true) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent) => {
      event.preventDefault();
      setOver(false);
      const files = [...(event.dataTransfer?.files ?? [])];
      if (files.length > 0) onFiles(files);
    };
    document.addEventListener('dragover', over);
    document.addEventListener('dragleave', leave);
    document.addEventListener('drop', drop);
    return () => {
      document.removeEventListener('dragover', over);
      document.removeEventListener('dragleave', leave);
      document.removeEventListener('drop', drop);
    };
  });
  return isOver;
}
