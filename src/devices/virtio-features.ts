/** Names of virtio's feature bits (the VIRTIO standard, "Reserved Feature Bits" and each device's "Feature bits"), without VIRTIO_…_F_. */

/** From bit 0 on; a dash is a bit without a name. */
const bits = (text: string, first = 0): [number, string][] =>
  text.split(' ').flatMap((name, i): [number, string][] => (name === '-' ? [] : [[first + i, name]]));

/** Bits that mean the same in every device. */
const common = new Map([
  ...bits('NOTIFY_ON_EMPTY', 24),
  ...bits('ANY_LAYOUT RING_INDIRECT_DESC RING_EVENT_IDX BAD_FEATURE', 27),
  ...bits('VERSION_1 ACCESS_PLATFORM RING_PACKED IN_ORDER ORDER_PLATFORM SR_IOV NOTIFICATION_DATA', 32),
  ...bits('NOTIF_CONFIG_DATA RING_RESET ADMIN_VQ', 39),
]);

const network = [
  ...bits('CSUM GUEST_CSUM CTRL_GUEST_OFFLOADS MTU - MAC GSO GUEST_TSO4 GUEST_TSO6 GUEST_ECN GUEST_UFO HOST_TSO4'),
  ...bits('HOST_TSO6 HOST_ECN HOST_UFO MRG_RXBUF STATUS CTRL_VQ CTRL_RX CTRL_VLAN CTRL_RX_EXTRA', 12),
  ...bits('GUEST_ANNOUNCE MQ CTRL_MAC_ADDR', 21),
  ...bits('DEVICE_STATS HASH_TUNNEL VQ_NOTF_COAL NOTF_COAL GUEST_USO4 GUEST_USO6 HOST_USO HASH_REPORT', 50),
  ...bits('GUEST_HDRLEN RSS RSC_EXT STANDBY SPEED_DUPLEX', 59),
];
const block = [
  ...bits('BARRIER SIZE_MAX SEG_MAX - GEOMETRY RO BLK_SIZE SCSI - FLUSH TOPOLOGY CONFIG_WCE MQ DISCARD WRITE_ZEROES'),
  ...bits('LIFETIME SECURE_ERASE ZONED', 15),
];
const socket = bits('STREAM SEQPACKET NO_IMPLIED_STREAM');

/** By the `vmsd_name` of the device. */
const byDevice = new Map<string, ReadonlyMap<number, string>>(
  Object.entries({
    'virtio-net': network,
    'virtio-blk': block,
    'vhost-user-blk': block,
    'virtio-console': bits('SIZE MULTIPORT EMERG_WRITE'),
    'virtio-balloon': bits('MUST_TELL_HOST STATS_VQ DEFLATE_ON_OOM FREE_PAGE_HINT PAGE_POISON REPORTING'),
    'virtio-scsi': bits('INOUT HOTPLUG CHANGE T10_PI'),
    'virtio-9p': bits('MOUNT_TAG'),
    'virtio-gpu': bits('VIRGL EDID RESOURCE_UUID RESOURCE_BLOB CONTEXT_INIT'),
    'virtio-crypto': bits('REVISION_1 CIPHER_STATELESS HASH_STATELESS MAC_STATELESS AEAD_STATELESS AKCIPHER_STATELESS'),
    'virtio-iommu': bits('INPUT_RANGE DOMAIN_RANGE MAP_UNMAP BYPASS PROBE MMIO BYPASS_CONFIG'),
    'virtio-mem': bits('ACPI_PXM UNPLUGGED_INACCESSIBLE PERSISTENT_SUSPEND'),
    'virtio-pmem': bits('SHMEM_REGION'),
    'virtio-vhost_vsock': socket,
    'vhost-vsock': socket,
    'vhost-vsock-common': socket,
  }).map(([device, list]) => [device, new Map(list)]),
);

/** Names of the set bits, from bit 0 on; `bit 42` for a bit without a name. `device` is the `vmsd_name`. */
export function virtioFeatureNames(device: string, features: bigint): string[] {
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (((features >> BigInt(bit)) & 1n) === 0n) continue;
    names.push(byDevice.get(device)?.get(bit) ?? common.get(bit) ?? `bit ${bit}`);
  }
  return names;
}
