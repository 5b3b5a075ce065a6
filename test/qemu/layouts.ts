/** Machines whose guest-physical layout is compared with QEMU's own: memory in every place that QEMU may give it. */

import type { LayoutOptions } from '../../src/node.ts';
import { type PhysicalMachine, readMap, setConfig } from './physical-guest.ts';
import type { Qemu, QemuVersion } from './qemu.ts';
import { plugVirtioMem, qtestArgs } from './qtest.ts';
import { waitUntil } from './wait-until.ts';

export interface LayoutCase extends Pick<PhysicalMachine, 'version' | 'machine' | 'ram' | 'args'> {
  name: string;
  /** Changes the machine, which has not run. */
  change?: (qemu: Qemu) => Promise<void>;
  /** `assumed`: the file does not decide the layout, but QEMU's rule gives it. Default: the file decides. */
  known?: 'decided' | 'assumed' | 'left out';
  /** The file does not decide the layout, and QEMU's rule gives another. These options state it. */
  stated?: LayoutOptions;
  /** Also part of `npm run test:qemu`. */
  essential?: true;
}

type Shape = Omit<LayoutCase, 'name' | 'version'> & { versions?: readonly QemuVersion[] };

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const TiB = 2 ** 40;
const fourGiB = 4 * GiB;

const epyc = ['-cpu', 'EPYC,phys-bits=48'];
const skylake = ['-cpu', 'Skylake-Server,phys-bits=48'];
const hole = (size: string, host = 'q35') => ['-global', `${host}-pcihost.pci-hole64-size=${size}`];
/** 64 MiB below 4 GiB. */
const low = 'max-ram-below-4g=64M';
const backend = (id: string, size: string) => ['-object', `memory-backend-ram,id=${id},size=${size}`];
const device = (driver: string, id: string, more = '') => ['-device', `${driver},memdev=${id}${more}`];
const dimm = (id: string, size: string, more = '') => [...backend(id, size), ...device('pc-dimm', id, more)];
const nvdimm = (id: string, size: string, more = '') => [...backend(id, size), ...device('nvdimm', id, more)];
const virtioMem = (id: string, size: string, slot: number, more = '') => [
  ...backend(id, size),
  ...device('virtio-mem-pci', id, `,addr=${slot},requested-size=${size}${more}`),
];
const node = (id: string) => ['-numa', `node,memdev=${id}`];
const shared = (slot: number, size = '16M') => [
  ...['-object', `memory-backend-ram,id=shm,size=${size},share=on`],
  ...['-device', `ivshmem-plain,memdev=shm,master=on,addr=${slot}`],
];

/** Enables the memory of the PCI device at an address. */
const showAt = (slot: number, address: number) => async (qemu: Qemu) => {
  await setConfig(qemu, slot, 0x18, (address % fourGiB) + 0xc, 4);
  await setConfig(qemu, slot, 0x1c, Math.floor(address / fourGiB), 4);
  await setConfig(qemu, slot, 0x04, 2, 2);
};

/** Lets the firmware run until it has placed the memory of the PCI device, and waits for a disk to boot from. */
const boot = async (qemu: Qemu) => {
  const isPlaced = async () => (await readMap(qemu)).some(({ name }) => name === 'shm');
  const isHalted = async () => (await qemu.hmp('info registers')).includes('HLT=1');
  await qemu.execute('cont');
  await waitUntil('the firmware waits', async () => (await isPlaced()) && (await isHalted()));
  await qemu.execute('stop');
};

const splits: Record<string, Shape> = {
  'q35, all RAM below': { machine: 'q35', ram: '128M' },
  'q35, split': { machine: `q35,${low}`, ram: '128M', essential: true },
  'q35, split, Intel': { machine: `q35,${low}`, ram: '128M', args: skylake },
  'q35, split, AMD': { machine: `q35,${low}`, ram: '128M', args: epyc },
  'pc, split, Intel': { machine: `pc,${low}`, ram: '128M', args: skylake },
  'pc, split, AMD': { machine: `pc,${low}`, ram: '128M', args: epyc },
  'q35, AMD, a large PCI hole': { machine: `q35,${low}`, ram: '128M', args: [...epyc, ...hole('1T')], essential: true },
  'pc, AMD, a large PCI hole': { machine: `pc,${low}`, ram: '128M', args: [...epyc, ...hole('1T', 'i440FX')] },
  'q35, Intel, a large PCI hole': { machine: `q35,${low}`, ram: '128M', args: [...skylake, ...hole('1T')] },
  'pc, Intel, a large PCI hole': { machine: `pc,${low}`, ram: '128M', args: [...skylake, ...hole('2T', 'i440FX')] },
  'q35, AMD, the largest PCI hole that leaves RAM low': {
    ...{ machine: `q35,${low}`, ram: '128M', args: [...epyc, ...hole('1007G')] },
  },
  'q35, AMD, the smallest PCI hole that moves RAM': {
    ...{ machine: `q35,${low}`, ram: '128M', args: [...epyc, ...hole('1008G')] },
  },
  'q35, no PCI hole above 4 GiB': { machine: `q35,${low}`, ram: '128M', args: hole('0') },
  'q35 of 7.0, AMD, a large PCI hole': {
    ...{ machine: `pc-q35-7.0,${low}`, ram: '128M', args: [...epyc, ...hole('1T')] },
  },
  'pc of 7.1, AMD, a large PCI hole': {
    ...{ machine: `pc-i440fx-7.1,${low}`, ram: '128M', args: [...epyc, ...hole('1T', 'i440FX')] },
  },
  'q35, no ACPI': { machine: `q35,acpi=off,${low}`, ram: '128M', known: 'assumed' },
  'pc, 32 bits': { machine: 'pc', ram: '128M', args: ['-cpu', 'qemu32'] },
  'q35 without slots, with an upper limit': { machine: `q35,${low}`, ram: '128M,maxmem=4G' },
  'q35, the default split': { machine: 'q35', ram: '2816M', versions: ['10.0'] },
  'pc, the default split': { machine: 'pc', ram: '3584M', versions: ['7.2'] },
  'q35, AMD, an upper limit of 1 TiB': {
    ...{ machine: `q35,${low}`, ram: '128M,slots=4,maxmem=1T', args: epyc, essential: true },
  },
  'pc, AMD, an upper limit of 1 TiB': { machine: `pc,${low}`, ram: '128M,slots=4,maxmem=1T', args: epyc },
  'q35, Intel, an upper limit of 1 TiB': { machine: `q35,${low}`, ram: '128M,slots=4,maxmem=1T', args: skylake },
  'q35, AMD, an upper limit of 900 GiB': { machine: `q35,${low}`, ram: '128M,slots=4,maxmem=900G', args: epyc },
  'q35, AMD, an upper limit and all RAM below': { machine: 'q35', ram: '128M,slots=4,maxmem=1T', args: epyc },
};

const m = '64M,slots=8,maxmem=4G';
const assumed = { known: 'assumed' } as const;
const dimms: Record<string, Shape> = {
  'pc, a DIMM': { machine: 'pc', ram: m, args: dimm('m', '32M'), ...assumed },
  'q35, split, a DIMM': { machine: 'q35,max-ram-below-4g=32M', ram: m, args: dimm('m', '32M'), ...assumed },
  'pc, DIMMs of two sizes': {
    ...{ machine: 'pc,max-ram-below-4g=48M', ram: m, essential: true, ...assumed },
    args: [...dimm('m1', '32M'), ...dimm('m2', '64M')],
  },
  'q35, three DIMMs of one size': {
    ...{ machine: 'q35', ram: m, args: ['x', 'y', 'z'].flatMap((id) => dimm(id, '16M')), ...assumed },
  },
  'q35, DIMMs as libvirt names them': {
    ...{ machine: 'q35', ram: m, ...assumed },
    args: ['16M', '64M', '2M', '32M'].flatMap((size, i) => dimm(`memdimm${i}`, size)),
  },
  'pc, eight DIMMs, numbered from 3 to 10': {
    ...{ machine: 'pc', ram: m, ...assumed },
    args: [3, 4, 5, 6, 7, 8, 9, 10].flatMap((i) => dimm(`m${i}`, `${2 * (i % 3) + 2}M`)),
  },
  'q35, AMD, DIMMs at 1 TiB': {
    ...{ machine: `q35,${low}`, ram: '128M,slots=4,maxmem=1T', ...assumed },
    args: [...epyc, ...dimm('m1', '32M'), ...dimm('m2', '64M')],
  },
  'pc, a DIMM that was plugged later': {
    ...{ machine: 'pc', ram: m, args: dimm('m1', '32M'), ...assumed },
    change: async (qemu) => {
      await qemu.hmp('object_add memory-backend-ram,id=m2,size=64M');
      await qemu.hmp('device_add pc-dimm,id=d2,memdev=m2');
    },
  },
  'pc of 2.6, which has no SRAT': {
    ...{ machine: 'pc-i440fx-2.6,max-ram-below-4g=32M', ram: m, ...assumed },
    args: [...dimm('m1', '32M'), ...dimm('m2', '64M')],
  },
  'q35 of 4.2, a DIMM': { machine: 'pc-q35-4.2', ram: m, args: dimm('m1', '32M'), ...assumed },
  'pc, a DIMM in a file': {
    ...{ machine: 'pc', ram: m, ...assumed },
    args: ['-object', 'memory-backend-memfd,id=m1,size=32M', ...device('pc-dimm', 'm1'), ...dimm('m2', '16M')],
  },
  'pc, DIMMs in another order than their backends': {
    ...{ machine: 'pc', ram: m, versions: ['10.0'] },
    args: [...backend('a', '32M'), ...backend('b', '32M'), ...device('pc-dimm', 'b'), ...device('pc-dimm', 'a')],
    stated: {
      dimms: [
        { block: 'b', address: fourGiB },
        { block: 'a', address: fourGiB + 32 * MiB },
      ],
    },
  },
  'pc, a DIMM at a stated address': {
    ...{ machine: 'pc', ram: m, versions: ['7.2'] },
    args: dimm('m1', '32M', ',addr=0x140000000'),
    stated: { dimms: [{ block: 'm1', address: 5 * GiB }] },
  },
};

const nvdimms: Record<string, Shape> = {
  'pc, an NVDIMM': { machine: 'pc,nvdimm=on', ram: m, args: nvdimm('n', '32M') },
  'q35, NVDIMMs, one with labels': {
    ...{ machine: 'q35,nvdimm=on', ram: m, essential: true },
    args: [...nvdimm('n1', '32M'), ...nvdimm('n2', '64M', ',label-size=128K')],
  },
  'q35, an NVDIMM at a stated address': {
    ...{ machine: 'q35,nvdimm=on', ram: m, args: nvdimm('n', '32M', ',addr=0x128000000') },
  },
  'pc, an NVDIMM between DIMMs': {
    ...{ machine: 'pc,nvdimm=on', ram: m, ...assumed },
    args: [...dimm('m1', '16M'), ...nvdimm('n', '32M', ',label-size=128K'), ...dimm('m2', '64M')],
  },
  'pc of 2.6, an NVDIMM': { machine: 'pc-i440fx-2.6,nvdimm=on', ram: m, args: nvdimm('n', '32M') },
  'q35, AMD, an NVDIMM at 1 TiB': {
    ...{ machine: `q35,nvdimm=on,${low}`, ram: '128M,slots=4,maxmem=1T', args: [...epyc, ...nvdimm('n', '32M')] },
  },
  'pc, two NVDIMMs of one size': {
    ...{ machine: 'pc,nvdimm=on', ram: m, ...assumed },
    args: [...nvdimm('n1', '32M'), ...nvdimm('n2', '32M')],
  },
  'q35, an NVDIMM that was plugged later': {
    ...{ machine: 'q35,nvdimm=on', ram: m, ...assumed },
    change: async (qemu) => {
      await qemu.hmp('object_add memory-backend-ram,id=n,size=32M');
      await qemu.hmp('device_add nvdimm,id=d,memdev=n');
    },
  },
};

const plugged = (slot: number, base: number) => (qemu: Qemu) =>
  plugVirtioMem(qemu, slot, [
    [base, 3],
    [base + 20 * MiB, 2],
    [base + 200 * MiB, 10],
  ]);
const v = '64M,slots=2,maxmem=4G';
const virtio: Record<string, Shape> = {
  'q35, virtio-mem with nothing plugged': { machine: 'q35', ram: v, args: virtioMem('v0', '256M', 1) },
  'q35, virtio-mem with pieces': {
    ...{ machine: 'q35', ram: v, args: [...virtioMem('v0', '256M', 1), ...qtestArgs], essential: true },
    change: plugged(1, fourGiB),
  },
  'pc, virtio-mem with pieces of 4 MiB': {
    ...{ machine: 'pc', ram: v, args: [...virtioMem('v0', '256M', 3, ',block-size=4M'), ...qtestArgs] },
    change: (qemu) => plugVirtioMem(qemu, 3, [[fourGiB + 4 * MiB, 5]]),
  },
  'q35 of 7.2, virtio-mem with pieces': {
    ...{ machine: 'pc-q35-7.2', ram: v, args: [...virtioMem('v0', '256M', 1), ...qtestArgs] },
    change: plugged(1, fourGiB),
  },
  'q35, virtio-mem with memory slots of its own': {
    ...{ machine: 'q35', ram: v, versions: ['10.0'] },
    args: [...virtioMem('v0', '256M', 1, ',dynamic-memslots=on'), ...qtestArgs],
    change: plugged(1, fourGiB),
  },
  'q35, two virtio-mem, one at a stated address': {
    ...{ machine: 'q35,max-ram-below-4g=32M', ram: v },
    args: [...virtioMem('v0', '256M', 1), ...virtioMem('v1', '256M', 2, ',memaddr=0x180000000'), ...qtestArgs],
    change: async (qemu) => {
      await plugged(1, 5 * GiB)(qemu);
      await plugVirtioMem(qemu, 2, [[6 * GiB, 128]]);
    },
  },
  'q35, a DIMM below virtio-mem': {
    ...{ machine: 'q35', ram: v, ...assumed },
    args: [...dimm('m', '32M'), ...virtioMem('v0', '256M', 1), ...qtestArgs],
    change: plugged(1, fourGiB + 32 * MiB),
  },
  'pc, a DIMM above virtio-mem': {
    ...{ machine: 'pc', ram: v, args: [...virtioMem('v0', '256M', 3), ...dimm('m', '32M')], ...assumed },
  },
  'q35, AMD, virtio-mem at 1 TiB': {
    ...{ machine: `q35,${low}`, ram: '128M,maxmem=1T', args: [...epyc, ...virtioMem('v0', '256M', 1), ...qtestArgs] },
    change: plugged(1, TiB + GiB),
  },
  'q35, virtio-pmem': {
    ...{ machine: 'q35', ram: '64M,maxmem=4G', known: 'left out' },
    args: [...backend('p', '64M'), ...device('virtio-pmem-pci', 'p')],
  },
  'q35, CXL windows': {
    ...{ machine: 'q35,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G', ram: `${v}` },
    args: [
      '-device',
      'pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1',
      '-device',
      'cxl-rp,port=0,bus=cxl.1,id=rp,chassis=0,slot=2',
    ],
  },
};

const numa: Record<string, Shape> = {
  'pc, nodes of two sizes': {
    ...{ machine: 'pc,max-ram-below-4g=40M', ram: '64M', essential: true },
    args: [...backend('small', '16M'), ...backend('large', '48M'), ...node('small'), ...node('large')],
  },
  'q35, nodes of one size': {
    ...{ machine: 'q35,max-ram-below-4g=40M', ram: '64M', ...assumed },
    args: [...backend('n0', '32M'), ...backend('n1', '32M'), ...node('n0'), ...node('n1')],
  },
  'q35, nodes in another order than their backends': {
    ...{ machine: 'q35,max-ram-below-4g=40M', ram: '64M', versions: ['10.0'] },
    args: [...backend('n0', '32M'), ...backend('n1', '32M'), ...node('n1'), ...node('n0')],
    stated: { ram: ['n1', 'n0'] },
  },
  'pc, AMD, three nodes, the last at 1 TiB': {
    ...{ machine: `pc,${low}`, ram: '112M,slots=2,maxmem=1T' },
    args: [...epyc, ...['16M', '64M', '32M'].flatMap((size, i) => [...backend(`n${i}`, size), ...node(`n${i}`)])],
  },
  'q35, a node without memory': {
    ...{ machine: 'q35,max-ram-below-4g=40M', ram: '64M' },
    args: ['-smp', '2', ...backend('n0', '64M'), '-numa', 'node,memdev=n0,cpus=0', '-numa', 'node,cpus=1'],
  },
  'pc of 5.0, nodes in one block': {
    ...{ machine: 'pc-i440fx-5.0,max-ram-below-4g=40M', ram: '64M' },
    args: ['-numa', 'node,mem=16M', '-numa', 'node,mem=48M'],
  },
  'q35, nodes and a DIMM': {
    ...{ machine: 'q35,max-ram-below-4g=40M', ram: '64M,slots=2,maxmem=4G', ...assumed },
    args: [
      ...[...backend('n0', '16M'), ...backend('n1', '48M'), ...node('n0'), ...node('n1')],
      ...dimm('m', '32M', ',node=1'),
    ],
  },
  'pc, RAM in a backend of another name': {
    ...{ machine: 'pc,max-ram-below-4g=40M,memory-backend=main', ram: '64M', args: backend('main', '64M') },
  },
};

const sharing: Record<string, Shape> = {
  'q35, ivshmem below 4 GiB': { machine: 'q35', ram: '64M', args: shared(4), change: showAt(4, 0xe000_0000) },
  'pc, ivshmem above 4 GiB': { machine: 'pc', ram: '64M', args: shared(4), change: showAt(4, 8 * GiB) },
  'q35, ivshmem that is not shown, and a DIMM': {
    ...{ machine: 'q35', ram: v, args: [...shared(4), ...dimm('m', '16M')], ...assumed },
  },
  'pc, Intel, placed by the firmware': {
    machine: `pc,${low}`,
    ram: '128M',
    args: [...skylake, ...shared(4)],
    change: boot,
  },
  'q35, AMD, an upper limit, placed by the firmware': {
    ...{ machine: `q35,${low}`, ram: '128M,slots=2,maxmem=1T', args: [...epyc, ...shared(4)], change: boot },
  },
  'q35, AMD, a large PCI hole, placed by the firmware above all memory': {
    ...{ machine: `q35,${low}`, ram: '128M', args: [...epyc, ...hole('1T'), ...shared(4)], change: boot },
    ...{ versions: ['10.0'], stated: { above4g: TiB } },
  },
  'q35, Intel, a large PCI hole, placed by the firmware above all memory': {
    ...{ machine: `q35,${low}`, ram: '128M', args: [...skylake, ...hole('1T'), ...shared(4)], change: boot },
    ...{ versions: ['10.0'], ...assumed },
  },
};

const both: readonly QemuVersion[] = ['7.2', '10.0'];

export const layoutCases: LayoutCase[] = Object.entries({
  ...splits,
  ...dimms,
  ...nvdimms,
  ...virtio,
  ...numa,
  ...sharing,
}).flatMap(([name, { versions = both, ...shape }]) =>
  versions.map((version) => ({ ...shape, version, name: `${name} (${version})` })),
);
