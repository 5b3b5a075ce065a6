/** Where files are dropped or chosen. A file may be dropped anywhere on the page (drops.ts). */
import { useRef } from 'preact/hooks';
import { isFileOver } from '../drops.ts';
import { openInput } from '../session.ts';

export function FileDrop() {
  return (
    <section class={`panel file-drop${isFileOver.value ? ' is-over' : ''}`}>
      <h2>Drop a migration file here</h2>
      <p>or choose it. It is not uploaded: the page reads it in this browser.</p>
      <FileButton label="Choose files…" test="files" isPrimary onFiles={(files) => void openInput({ files })} />
    </section>
  );
}

interface Props {
  label: string;
  test: string;
  isPrimary?: boolean;
  onFiles(files: File[]): void;
}

/** A button that asks for files. */
export function FileButton({ label, test, isPrimary = false, onFiles }: Props) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        multiple
        class="visually-hidden"
        tabIndex={-1}
        aria-label={label}
        data-test={test}
        onChange={({ currentTarget }) => take(currentTarget, onFiles)}
      />
      <button type="button" class={isPrimary ? 'primary' : ''} onClick={() => input.current?.click()}>
        {label}
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
