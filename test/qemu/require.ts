/**
 * Whether tests that need a real QEMU can run. Without QEMU they are skipped, and say so; with VMFERRY_REQUIRE_QEMU=1
 * they are run, and fail.
 */
import { findQemu, type QemuVersion } from './qemu.ts';

const told = new Set<QemuVersion>();

/** For `describe.skipIf(lacksQemu('7.2', '10.0'))`: whether one of the versions is missing, and need not be there. */
export function lacksQemu(...versions: QemuVersion[]): boolean {
  if (process.env.VMFERRY_REQUIRE_QEMU === '1') return false;
  const missing = versions.filter((version) => !findQemu(version));
  for (const version of missing) {
    if (!told.has(version)) console.warn(`skipped: QEMU ${version} is not installed (test/qemu/install.sh does it)`);
    told.add(version);
  }
  return missing.length > 0;
}
