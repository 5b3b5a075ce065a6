/** Gives the open machine to all components of its page. */
import { createContext } from 'preact';
import { useContext } from 'preact/hooks';
import type { Machine } from '../machine.ts';

export const OpenMachine = createContext<Machine | undefined>(undefined);

/** The open machine. @throws TypeError outside a machine's page. */
export function useMachine(): Machine {
  const machine = useContext(OpenMachine);
  if (machine === undefined) throw new TypeError('no machine is open here');
  return machine;
}
