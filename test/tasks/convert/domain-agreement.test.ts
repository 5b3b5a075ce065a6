import { describe, expect, it } from 'vitest';
import type { DomainFacts } from '../../../src/read/container/domain-xml.ts';
import { requireDomain, type StreamedFacts } from '../../../src/tasks/convert/domain-agreement.ts';

const [MiB, GiB] = [2 ** 20, 2 ** 30];
const block = (idstr: string, usedLength: number, index = 0) => ({ index, idstr, usedLength, pageSize: 4096 });
const uuid = '9f4e1c557d4f4c579c7f0d7a30fbb9a1';
const streamed = (facts: Partial<StreamedFacts> = {}): StreamedFacts => ({
  ...{ machine: 'pc-i440fx-10.0', uuid: undefined, blocks: [block('pc.ram', 2 * GiB), block('pc.bios', 65536)] },
  ...facts,
});
const xml = (facts: Partial<DomainFacts>): DomainFacts => ({ memoryDevices: [], ...facts });
const numa = [block('ram-node0', GiB), block('ram-node1', GiB)];
const dimm = (size: number) => [{ model: 'dimm', alias: 'dimm0', size }];

describe('a domain XML', () => {
  it.each<[string, Partial<DomainFacts>, Partial<StreamedFacts>]>([
    ['of the same machine', { machine: 'pc-i440fx-10.0' }, {}],
    ['of an alias of the machine', { machine: 'pc' }, {}],
    ['of the alias q35', { machine: 'q35' }, { machine: 'pc-q35-7.2' }],
    ['of the alias virt', { machine: 'virt' }, { machine: 'virt-9.0' }],
    ['of the alias s390-ccw-virtio', { machine: 's390-ccw-virtio' }, { machine: 's390-ccw-virtio-10.0' }],
    ['of the alias of a distribution', { machine: 'ubuntu' }, { machine: 'pc-i440fx-noble' }],
    ['of any machine, for a stream that states none', { machine: 'q35' }, { machine: undefined }],
    ['of the same memory', { memory: 2 * GiB }, {}],
    ['whose balloon is inflated', { memory: 2 * GiB, currentMemory: GiB, maxMemory: 8 * GiB }, {}],
    ['of memory that libvirt rounds up', { memory: 2 * GiB - 1024 }, {}],
    ['of several nodes', { memory: 2 * GiB }, { blocks: numa }],
    ['with a DIMM', { memory: 3 * GiB, memoryDevices: dimm(GiB) }, {}],
    [
      'with a DIMM whose block is in the stream',
      { memory: 3 * GiB, memoryDevices: dimm(GiB) },
      { blocks: [block('pc.ram', 2 * GiB), block('/objects/memdimm0', GiB)] },
    ],
    ['of any memory, for RAM with an unknown name', { memory: 9 * GiB }, { blocks: [block('mine', GiB)] }],
    ['of the same UUID', { uuid }, { uuid }],
    ['of any UUID, for a stream that states none', { uuid }, {}],
    ['of any UUID, for channels that state zeros', { uuid }, { uuid: '0'.repeat(32) }],
    ['of any name, for a stream that states none', { name: 'a' }, {}],
    [
      'of the same name and UUID as the image',
      { name: 'a', uuid },
      { domain: { type: 'kvm', name: 'a', uuid: '9f4e1c55-7d4f-4c57-9c7f-0d7a30fbb9a1' } },
    ],
  ])('%s fits', (_, facts, stream) => {
    expect(() => requireDomain(xml(facts), streamed(stream))).not.toThrow();
  });

  it.each<[string, Partial<DomainFacts>, Partial<StreamedFacts>, RegExp]>([
    [
      'another version',
      { machine: 'pc-i440fx-7.2' },
      {},
      /machine is pc-i440fx-7.2, that of the stream pc-i440fx-10.0/,
    ],
    ['another alias', { machine: 'q35' }, {}, /machine is q35, that of the stream pc-i440fx-10.0/],
    ['the alias pc', { machine: 'pc' }, { machine: 'pc-q35-10.0' }, /machine is pc, that of the stream pc-q35-10.0/],
    ['more memory', { memory: 4 * GiB }, {}, /memory is 4294967296 bytes, that of the stream 2147483648 \(pc.ram\)/],
    ['less memory', { memory: 2 * GiB - 4 * MiB }, {}, /memory is 2143289344 bytes, that of the stream 2147483648/],
    [
      'one node more',
      { memory: 3 * GiB },
      { blocks: numa },
      /that of the stream 2147483648 \(ram-node0 and ram-node1\)/,
    ],
    [
      'more memory without its DIMMs',
      { memory: 5 * GiB, memoryDevices: dimm(GiB) },
      {},
      /memory is 5368709120 bytes \(4294967296 without memory devices\), that of the stream 2147483648/,
    ],
    [
      'a DIMM of another size',
      { memory: 4 * GiB, memoryDevices: dimm(2 * GiB) },
      { blocks: [block('pc.ram', 2 * GiB), block('memdimm0', GiB)] },
      /memory device dimm0 has 2147483648 bytes, that of the stream 1073741824 \(memdimm0\)/,
    ],
    [
      'another UUID',
      { uuid },
      { uuid: '0'.repeat(31).concat('1') },
      /UUID is 9f4e1c55-7d4f-4c57-9c7f-0d7a30fbb9a1, that of the stream 00000000-0000-0000-0000-000000000001/,
    ],
    [
      'another name than the image',
      { name: 'a' },
      { domain: { type: 'kvm', name: 'b', uuid: undefined } },
      /name is "a", that of the image "b"/,
    ],
  ])('of %s is refused', (_, facts, stream, message) => {
    expect(() => requireDomain(xml(facts), streamed(stream))).toThrow(message);
  });

  it('is refused with all disagreements', () => {
    const facts = xml({ machine: 'q35', memory: GiB });
    expect(() => requireDomain(facts, streamed())).toThrow(/the domain XML .*: its machine is .*; its memory is /);
  });
});
