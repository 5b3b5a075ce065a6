/** Where files are dropped or chosen. A file may be dropped anywhere on the page (drops.ts). */
import { useRef } from 'preact/hooks';
import { isFileOver } from '../drops.ts';
import { openInput } from '../session.ts';

export function FileDrop() {
  const input = useRef<HTMLInputElement>(null);
  return (
    <section class={`panel file-drop${isFileOver.value ? ' is-over' : ''}`}>
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
