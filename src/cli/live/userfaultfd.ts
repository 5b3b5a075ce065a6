/** Tells before anything starts that the target cannot take postcopy, where that can be known. */
import type { MigrationAddress } from '../../io/migration-address.ts';
import { whoLacksUserfaultfd } from '../../io/node/userfaultfd.ts';
import { UsageError } from '../exit-codes.ts';
import { warn } from '../messages.ts';

/** @throws UsageError that names the ways out, if the QEMU at an address may not use userfaultfd */
export function requireUserfaultfd(address: MigrationAddress): void {
  const owner = whoLacksUserfaultfd(address);
  if (owner === undefined) return;
  const { uid, isCertain } = owner;
  if (!isCertain) {
    warn(`if the target runs as user ${uid}, it may not use userfaultfd, which postcopy needs: ${waysOut}`);
    return;
  }
  throw new UsageError(
    `the target runs as user ${uid}, who may not use userfaultfd, and postcopy needs it: ${waysOut}`,
  );
}

const waysOut =
  'run the guest on the file itself (vmferry resume FILE --map), or set vm.unprivileged_userfaultfd to 1, or let the user open /dev/userfaultfd, or load all of it first (vmferry send FILE, without --postcopy)';
