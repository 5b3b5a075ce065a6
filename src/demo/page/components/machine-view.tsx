/** The page of an open machine: all panels, with the bytes beside them. */
import type { Machine } from '../machine.ts';
import { BytesPanel } from './bytes-panel.tsx';
import { DevicesPanel } from './devices-panel.tsx';
import { DiffPanel } from './diff-panel.tsx';
import { FindingsPanel } from './findings-panel.tsx';
import { MachineBar } from './machine-bar.tsx';
import { OpenMachine } from './machine-context.ts';
import { MapPanel } from './map-panel.tsx';
import { SectionsPanel } from './sections-panel.tsx';
import { SummaryPanel } from './summary-panel.tsx';

export function MachineView({ machine }: { machine: Machine }) {
  return (
    <OpenMachine.Provider value={machine}>
      <MachineBar />
      <div class="machine">
        <SummaryPanel />
        <MapPanel />
        <BytesPanel />
        <DiffPanel />
        <FindingsPanel />
        <SectionsPanel />
        <DevicesPanel />
      </div>
    </OpenMachine.Provider>
  );
}
