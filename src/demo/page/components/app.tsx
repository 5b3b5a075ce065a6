/** The whole page: its head, the current content, and its foot. */
import { useEffect, useRef } from 'preact/hooks';
import { announcement } from '../announce.ts';
import { means, phase } from '../session.ts';
import { FailureNote } from './failure-note.tsx';
import { FailureView } from './failure-view.tsx';
import { MachineView } from './machine-view.tsx';
import { OpenPanel } from './open-panel.tsx';
import { Opening } from './opening.tsx';
import { PageFoot, PageHead } from './page-frame.tsx';

export function App() {
  const main = useRef<HTMLElement>(null);
  const { kind } = phase.value;
  const found = means.value;
  const shown = useRef(kind);
  // The element with the focus disappeared with the old content.
  useEffect(() => {
    if (shown.current !== kind) main.current?.focus({ preventScroll: true });
    shown.current = kind;
  }, [kind]);
  return (
    <>
      <PageHead />
      <main id="main" ref={main} tabIndex={-1}>
        {found !== undefined && 'failure' in found ? <FailureNote failure={found.failure} /> : <Content />}
      </main>
      <PageFoot />
      <div class="visually-hidden" role="status" aria-live="polite" data-test="announcement">
        {announcement.value}
      </div>
    </>
  );
}

function Content() {
  const now = phase.value;
  switch (now.kind) {
    case 'empty':
      return <OpenPanel lost={now.lost} />;
    case 'opening':
      return <Opening name={now.name} />;
    case 'failed':
      return <FailureView name={now.name} input={now.input} failure={now.failure} retry={now.retry} />;
    case 'open':
      return <MachineView machine={now.machine} key={now.machine.file.id} />;
  }
}
