/** The dirty rings of `vmferry vm`: those of whatever guest it has, which may arrive later, or be replaced. */
import { SyntheticGuest } from '../../guest/synthetic-guest.ts';
import { SyntheticRing } from '../../guest/synthetic-ring.ts';
import type { MachineGuest } from '../../migrate/machine.ts';
import type { LimitedVcpus } from '../../migrate/vcpu-dirty-limit.ts';

const pageSize = 4096;

/** Makes the rings of so many vCPUs, of so many pages each. A guest without a workload writes nothing. */
export const ringsOf =
  (vcpus: number, entries: number) =>
  (present: () => MachineGuest | undefined): LimitedVcpus => {
    let known: { guest: SyntheticGuest; ring: SyntheticRing } | undefined;
    const ring = () => {
      const guest = present();
      if (!(guest instanceof SyntheticGuest)) return undefined;
      if (known?.guest !== guest) known = { guest, ring: new SyntheticRing(guest, entries) };
      return known.ring;
    };
    return {
      ...{ vcpus, entries, pageSize },
      async pagesWritten() {
        const written = (await ring()?.pagesWritten()) ?? [];
        return Array.from({ length: vcpus }, (_, vcpu) => written[vcpu] ?? 0);
      },
      setSleep: (vcpu, us) => ring()?.setSleep(vcpu, us),
    };
  };
