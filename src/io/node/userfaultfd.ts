/**
 * Whether a QEMU on this host may use userfaultfd, without which it cannot take postcopy. The kernel lets any process do so if
 * vm.unprivileged_userfaultfd is 1, and otherwise root, and whoever can open /dev/userfaultfd.
 */
import { readFileSync, type Stats, statSync } from 'node:fs';
import type { MigrationAddress } from '../migration-address.ts';

/** Where the kernel says so. */
export interface UserfaultfdFiles {
  setting: string;
  device: string;
}

const systemFiles: UserfaultfdFiles = {
  setting: '/proc/sys/vm/unprivileged_userfaultfd',
  device: '/dev/userfaultfd',
};

/**
 * The user of the QEMU at an address, if that user may not use userfaultfd. Undefined: it may, or that cannot be known. The
 * owner of a unix socket is certain; over TCP the QEMU is taken to have the user of this process.
 */
export function whoLacksUserfaultfd(
  address: MigrationAddress,
  { setting, device }: UserfaultfdFiles = systemFiles,
): { uid: number; isCertain: boolean } | undefined {
  const owner = ownerOf(address);
  if (owner === undefined || owner.uid === 0 || read(setting)?.trim() !== '0') return undefined;
  const node = stat(device);
  return node !== undefined && mayOpen(node, owner.uid) ? undefined : owner;
}

/** The user of the QEMU at an address on this host. */
function ownerOf(address: MigrationAddress): { uid: number; isCertain: boolean } | undefined {
  if (address.transport !== 'socket') return undefined;
  if (address.type === 'unix') {
    const socket = stat(address.path);
    return socket === undefined ? undefined : { uid: socket.uid, isCertain: true };
  }
  const isHere = address.type === 'inet' && /^(localhost|127\.[\d.]+|::1)$/.test(address.host);
  return isHere && process.getuid !== undefined ? { uid: process.getuid(), isCertain: false } : undefined;
}

/** Groups are not known: a device that only they can open counts as open. */
const mayOpen = ({ mode, uid: owner }: Stats, uid: number): boolean =>
  (mode & 0o006) === 0o006 || (mode & 0o060) === 0o060 || (owner === uid && (mode & 0o600) === 0o600);

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

const stat = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false });
