/**
 * Compares a domain XML with the stream that it will be stored with (docs/formats/libvirt.md, "The domain XML"). libvirt
 * builds QEMU's command line from the XML. If that describes another machine, or RAM of another size, QEMU refuses the
 * stream only when the image is restored. A fact that one of the two does not state is not judged.
 */
import type { DomainFacts } from '../../read/container/domain-xml.ts';
import type { Domain } from '../../read/container/libvirt-header.ts';
import type { RamBlock } from '../../vm/ram-block.ts';
import { formatUuid } from '../../vm/uuid.ts';

/** What a stream states about its VM. */
export interface StreamedFacts {
  machine: string | undefined;
  /** 32 hex digits. */
  uuid: string | undefined;
  blocks: readonly RamBlock[];
  /** The domain of the libvirt image that the stream comes from. */
  domain?: Domain;
}

/** @throws RangeError if they disagree; its message names both values of each fact */
export function requireDomain(xml: DomainFacts, streamed: StreamedFacts): void {
  const disagreements = [
    compareMachines(xml.machine, streamed.machine),
    compareMemory(xml, streamed.blocks),
    compareUuids(xml.uuid, streamed.uuid ?? streamed.domain?.uuid?.replaceAll('-', '')),
    compareNames(xml.name, streamed.domain?.name),
  ].filter((each) => each !== undefined);
  if (disagreements.length === 0) return;
  throw new RangeError(`the domain XML does not fit the stream: ${disagreements.join('; ')}`);
}

/** libvirt also takes an alias, which means the newest machine type of a family. Distributions add aliases of their own. */
function compareMachines(xml: string | undefined, stream: string | undefined): string | undefined {
  if (xml === undefined || stream === undefined || xml === stream) return undefined;
  if (xml === aliasOf(stream) || xml.startsWith('ubuntu')) return undefined;
  return `its machine is ${xml}, that of the stream ${stream}`;
}

function aliasOf(machine: string): string {
  if (/^pc-(i440fx|[01]\.)/.test(machine)) return 'pc';
  if (machine.startsWith('pc-q35-')) return 'q35';
  return machine.replace(/-(rhel)?\d.*$/, '');
}

/** Names of the RAM outside memory devices: the machines' own, and NUMA nodes as libvirt names them. */
const mainRam = /^(\/objects\/)?(pc\.ram|mach-virt\.ram|s390\.ram|ppc_spapr\.ram|riscv_virt_board\.ram|ram-node\d+)$/;

const MiB = 2 ** 20;

function compareMemory(xml: DomainFacts, blocks: readonly RamBlock[]): string | undefined {
  const ram = blocks.filter(({ idstr }) => mainRam.test(idstr));
  if (xml.memory === undefined || ram.length === 0) return compareDevices(xml, blocks);
  const streamed = ram.reduce((sum, { usedLength }) => sum + usedLength, 0);
  const devices = xml.memoryDevices.reduce((sum, { size = 0 }) => sum + size, 0);
  // libvirt rounds each node up.
  const step = (xml.arch?.startsWith('ppc64') ? 256 : 2) * MiB * ram.length;
  const fits = (size: number) => streamed >= size && streamed - size < step;
  // In hand-written XML, <memory> may not include the memory devices.
  if (fits(xml.memory - devices) || fits(xml.memory)) return compareDevices(xml, blocks);
  const names = ram.map(({ idstr }) => idstr).join(' and ');
  const without = devices === 0 ? '' : ` (${xml.memory - devices} without memory devices)`;
  return `its memory is ${xml.memory} bytes${without}, that of the stream ${streamed} (${names})`;
}

/** Memory devices that have an alias, and RAM blocks with the names that libvirt gives them. */
function compareDevices({ memoryDevices }: DomainFacts, blocks: readonly RamBlock[]): string | undefined {
  for (const { alias, size } of memoryDevices) {
    const block = blocks.find(({ idstr }) => idstr.replace(/^\/objects\//, '') === `mem${alias}`);
    if (block === undefined || size === undefined || block.usedLength === size) continue;
    return `its memory device ${alias} has ${size} bytes, that of the stream ${block.usedLength} (${block.idstr})`;
  }
  return undefined;
}

/** A multifd stream without a UUID states zeros. */
function compareUuids(xml: string | undefined, stream: string | undefined): string | undefined {
  if (xml === undefined || stream === undefined || xml === stream || /^0*$/.test(stream)) return undefined;
  return `its UUID is ${formatUuid(xml)}, that of the stream ${formatUuid(stream)}`;
}

function compareNames(xml: string | undefined, image: string | undefined): string | undefined {
  if (xml === undefined || image === undefined || xml === image) return undefined;
  return `its name is "${xml}", that of the image "${image}"`;
}
