/** A machine: everything that is known of it on one page, with the bytes beside it. */
import { createContext } from 'preact';
import { useContext } from 'preact/hooks';
import type { Machine } from '../machine.ts';
import { BytesPanel } from './bytes-panel.tsx';
import { DevicesPanel } from './devices-panel.tsx';
import { DiffPanel } from './diff-panel.tsx';
import { FindingsPanel } from './findings-panel.tsx';
import { MachineBar } from './machine-bar.tsx';
import { MapPanel } from './map-panel.tsx';
import { SectionsPanel } from './sections-panel.tsx';
import { SummaryPanel } from './summary-panel.tsx';

const OpenMachine = createContext<Machine | undefined>(undefined);

/** The machine that is open; for the parts of its page. */
export function useMachine(): Machine {
  const machine = useContext(OpenMachine);
  if (machine === undefined) throw new TypeError('no machine is open here');
  return machine;
}

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
