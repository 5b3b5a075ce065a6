/** The place to drop or choose files. `drops.ts` accepts them anywhere on the page. */
import { useRef } from 'preact/hooks';
import { isFileOver } from '../drops.ts';
import { openInput } from '../session.ts';

export function FileDrop() {
  return (
    <section class={`panel file-drop${isFileOver.value ? ' is-over' : ''}`}>
      <h2>Drop a migration file here</h2>
      <p>Or choose it. The page reads it in this browser and does not upload it.</p>
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

/** A button that opens the file dialog. */
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
        // The button stands for it.
        aria-hidden="true"
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
  // Otherwise the same file could not be chosen again.
  input.value = '';
  if (files.length > 0) onFiles(files);
}
