/** The descriptors of a machine in this process, to which clients pass none. Its answers are those of a QEMU. */
import { DescriptorTable } from '../../src/qmp/machine/descriptor-table.ts';
import { schemaOf } from '../../src/schema/qapi/schema.ts';
import type { ReleaseName } from '../../src/schema/release-rules.ts';

const unreached = (): never => {
  throw new Error('nobody has passed a descriptor');
};

export const noDescriptors = (release: ReleaseName): DescriptorTable =>
  new DescriptorTable({
    ...{ schema: schemaOf(release), isRunning: () => true },
    system: { duplicate: unreached, flagsOf: unreached, close: unreached },
  });
