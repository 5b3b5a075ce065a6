/**
 * The body of a virtio device, which the VM description gives as one field (docs/formats/devices.md, "virtio"):
 *
 *     the transport's own (PCI, MMIO) | status, features, configuration | queues | the device's own | subsections
 *
 * Nothing states the transport: it is the one whose layout ends where the bytes end. Requests in flight, and the
 * private state of less common devices, are not decoded. Everything around them is.
 */
import type { StateDescription } from '../vm/description.ts';
import { buildLayout, type LayoutBuilder } from './layout-builder.ts';
import { addMsix, addPciDevice, msixVectors } from './pci-state.ts';

/** Queues for which QEMU allocates space in each device, used or not. */
const allQueues = 1024;

/** The state that a transport keeps for a device, and what it adds to each queue. */
interface Transport {
  draw(whole: LayoutBuilder): { hasAlignment: boolean; hasVector: boolean };
}

const pci = (configurationBytes: number): Transport => ({
  draw(whole) {
    addPciDevice(whole, configurationBytes);
    const vectors = msixVectors(whole, configurationBytes);
    if (vectors > 0) addMsix(whole, vectors).u16('config_vector');
    return { hasAlignment: false, hasVector: vectors > 0 };
  },
});

const mmio: Transport = {
  draw(whole) {
    whole.u32('host_features_sel').u32('guest_features_sel').u32('guest_page_shift');
    return { hasAlignment: true, hasVector: false };
  },
};

const transports = [pci(256), pci(4096), mmio];

/** Describes a virtio device's body; `vmsdName` names the device. Undefined if the body fits no known layout. */
export function describeVirtio(bytes: DataView, vmsdName: string): StateDescription | undefined {
  const drawOwn = owns.get(vmsdName);
  for (const isExact of [true, false]) {
    if (isExact && drawOwn === undefined) continue;
    for (const transport of transports) {
      const found = buildLayout(bytes, 'virtio', (whole) => {
        drawCommon(whole, transport);
        const features = featuresOf(whole);
        if (!isExact) whole.unknown('device', findSubsections(whole));
        else if (drawOwn !== nothing)
          whole.struct('device', (own) => drawOwn?.(own, features), { vmsdName: `${vmsdName}-device` });
        drawSubsections(whole);
      });
      if (found !== undefined) return found;
    }
  }
  return buildLayout(bytes, 'virtio', (whole) => {
    const end = findSubsections(whole);
    whole.insist(end < bytes.byteLength);
    whole.unknown('device', end);
    drawSubsections(whole);
  });
}

function drawCommon(whole: LayoutBuilder, transport: Transport): void {
  const { hasAlignment, hasVector } = transport.draw(whole);
  whole.u8('status').u8('isr').u16('queue_sel').u32('guest_features');
  whole.buffer('config', whole.count32('config_len'));
  const queues = whole.count32('queues');
  whole.insist(queues <= allQueues);
  whole.array('vq', queues, (queue) => {
    queue.u32('num');
    if (hasAlignment) queue.u32('align');
    queue.u64('desc').u16('last_avail_idx');
    if (hasVector) queue.u16('vector');
  });
}

/** The lower 32 feature bits that the driver has accepted. */
function featuresOf({ state, view }: LayoutBuilder): number {
  let at = 0;
  for (const { name, size = 0, arrayLength = 1 } of state.fields) {
    if (name === 'guest_features') return view.getUint32(at);
    at += size * arrayLength;
  }
  return 0;
}

/** Adds a device's own state; `features` are the lower 32 feature bits that the driver has accepted. */
type DrawOwn = (whole: LayoutBuilder, features: number) => void;

/** A device without private state. */
const nothing: DrawOwn = () => {};

const owns = new Map<string, DrawOwn>([
  ['virtio-net', drawNet],
  ['virtio-blk', (whole) => whole.insist(whole.count8('requests') === 0)],
  ['virtio-scsi', nothing],
  ['virtio-console', drawConsole],
  ['virtio-rng', nothing],
  ['virtio-balloon', drawBalloon],
  ['virtio-gpu', nothing],
  ['virtio-input', nothing],
  ['virtio-iommu', drawIommu],
]);

const ctrlGuestOffloads = 1 << 2;

function drawNet(whole: LayoutBuilder, features: number): void {
  whole.buffer('mac', 6).u32('tx_waiting').u32('mergeable_rx_bufs').u16('status').u8('promisc').u8('allmulti');
  const addresses = whole.count32('mac_table.in_use');
  whole
    .buffer('mac_table.macs', addresses * 6)
    .buffer('vlans', 512)
    .u32('has_vnet_hdr');
  whole.u8('mac_table.multi_overflow').u8('mac_table.uni_overflow').u8('alluni').u8('nomulti').u8('nouni');
  whole.u8('nobcast').u8('has_ufo');
  if ((features & ctrlGuestOffloads) !== 0) whole.u64('curr_guest_offloads');
}

/** virtio-serial. A port with a partly consumed buffer is not decoded. */
function drawConsole(whole: LayoutBuilder): void {
  whole.u16('cols').u16('rows');
  const words = Math.ceil(whole.count32('max_nr_ports') / 32);
  whole.add('ports_map', 'uint32', 4, words);
  const ports = whole.count32('active_ports');
  for (let i = 0; i < ports; i++) {
    const draw = (port: LayoutBuilder) => {
      port.u32('id').bool('guest_connected').bool('host_connected');
      port.insist(port.count32('elem_popped') === 0);
    };
    whole.struct('port', draw, { index: i });
  }
}

function drawBalloon(whole: LayoutBuilder): void {
  whole.u32('num_pages').u32('actual');
  drawBalloonSubsections(whole);
}

function drawBalloonSubsections(whole: LayoutBuilder): void {
  for (;;) {
    const name = whole.subsectionName('virtio-balloon-device/');
    if (name === 'virtio-balloon-device/free-page-report') {
      whole.subsection(name, (part) => part.u32('free_page_hint_cmd_id').u32('free_page_hint_status'));
    } else if (name === 'virtio-balloon-device/page-poison') {
      whole.subsection(name, (part) => part.u32('poison_val'));
    } else return;
  }
}

/** Decodes only a state without domains, because a guest that uses the IOMMU has more. */
function drawIommu(whole: LayoutBuilder): void {
  whole.insist(whole.count32('domains') === 0 && whole.count8('domains_end') === 0);
  whole.bool('boot_bypass');
}

/** Subsections of all virtio devices, in the order in which QEMU writes them. */
const subsections = new Map<string, (part: LayoutBuilder) => void>([
  ['device_endian', (part) => part.u8('device_endian')],
  ['64bit_features', (part) => part.u64('guest_features')],
  ['virtqueues', (part) => part.array('vq', allQueues, (queue) => queue.u64('avail').u64('used'))],
  ['ringsize', (part) => part.add('num_default', 'uint32', 4, allQueues)],
  ['broken', (part) => part.bool('broken')],
  ['extra_state', drawExtraState],
  ['started', (part) => part.bool('started')],
  [
    'packed_virtqueues',
    (part) =>
      part.array('vq', allQueues, (queue) => {
        queue
          .u16('last_avail_idx')
          .bool('last_avail_wrap_counter')
          .u16('used_idx')
          .bool('used_wrap_counter')
          .u32('inuse');
      }),
  ],
  ['disabled', (part) => part.bool('disabled')],
]);

const prefix = 'virtio/';

function drawSubsections(whole: LayoutBuilder): void {
  while (whole.left > 0) {
    const name = whole.subsectionName(prefix);
    const draw = subsections.get(name?.slice(prefix.length) ?? '');
    if (name === undefined || draw === undefined) return void whole.insist(false);
    whole.subsection(name, draw);
  }
}

/** The state that a transport keeps for a virtio 1.0 device. */
function drawExtraState(part: LayoutBuilder): void {
  // A device without virtio 1.0 has an empty subsection.
  if (!part.subsectionName('virtio_pci/modern_state') && !part.subsectionName('virtio_mmio/state')) return;
  const isPci = part.subsectionName('virtio_pci/modern_state') === 'virtio_pci/modern_state';
  const name = isPci ? 'virtio_pci/modern_state' : 'virtio_mmio/state';
  part.insist(part.subsectionName(name) === name);
  part.subsection(name, (state) => {
    if (isPci) state.u32('dfselect').u32('gfselect');
    state.add('guest_features', 'uint32', 4, 2);
    state.array('vqs', allQueues, (queue) => {
      queue.u16('num');
      if (isPci) queue.add('unused', 'unused_buffer', 1);
      queue.bool('enabled');
      for (const ring of ['desc', 'avail', 'used']) queue.add(ring, 'uint32', 4, 2);
    });
  });
}

/** Where the subsections begin; the end if there are none. */
function findSubsections({ view, at }: LayoutBuilder): number {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  for (let i = at; i + 2 + prefix.length < bytes.length; i++) {
    if (bytes[i] !== 0x05) continue;
    let matched = 0;
    while (matched < prefix.length && bytes[i + 2 + matched] === prefix.charCodeAt(matched)) matched++;
    if (matched === prefix.length) return i;
  }
  return bytes.length;
}
