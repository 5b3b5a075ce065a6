/** The button that does what a remedy says. */
import type { FileInput } from '../../protocol.ts';
import { goTo } from '../jump.ts';
import type { Remedy } from '../remedies.ts';
import { phase } from '../session.ts';
import { FileButton } from './file-drop.tsx';

interface Props {
  remedy: Remedy;
  input: FileInput | undefined;
  open(input: FileInput): void;
  retry: (() => void) | undefined;
}

export function RemedyButton({ remedy: { action, label = '' }, input, open, retry }: Props) {
  switch (action) {
    case undefined:
      return null;
    case 'add':
    case 'choose': {
      const known = action === 'add' ? filesOf(input) : [];
      // The page cannot add a chosen file to a URL or an archive.
      const isInstead = action === 'add' && known.length === 0;
      const choose = (files: File[]) => open({ files: [...known, ...files] });
      return (
        <div class="row">
          <FileButton label={isInstead ? 'Choose all its files' : label} test="remedy-files" onFiles={choose} />
        </div>
      );
    }
    case 'retry':
      return retry === undefined ? null : <Press label={label} onPress={retry} />;
    case 'reload':
      return <Press label={label} onPress={() => location.reload()} />;
    case 'sections':
    case 'summary':
      return phase.value.kind === 'open' ? <Press label={label} onPress={() => goTo(action)} /> : null;
  }
}

function Press({ label, onPress }: { label: string; onPress(): void }) {
  return (
    <div class="row">
      <button type="button" onClick={onPress}>
        {label}
      </button>
    </div>
  );
}

/** The files that others can be added to. */
function filesOf(input: FileInput | undefined): readonly File[] {
  if (input === undefined || 'url' in input) return [];
  const [first, ...others] = input.files;
  return others.length === 0 && /\.zip$/i.test(first?.name ?? '') ? [] : input.files;
}
