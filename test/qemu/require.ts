/**
 * Whether tests that need a real QEMU can run. Without QEMU they are skipped with a message; with
 * VMFERRY_REQUIRE_QEMU=1 they run and fail.
 */
import { findQemu, type QemuVersion } from './qemu.ts';

const reported = new Set<QemuVersion>();

/** For `describe.skipIf(lacksQemu('7.2', '10.0'))`: whether one of the versions is missing and not required. */
export function lacksQemu(...versions: QemuVersion[]): boolean {
  if (process.env.VMFERRY_REQUIRE_QEMU === '1') return false;
  const missing = versions.filter((version) => !findQemu(version));
  for (const version of missing) {
    if (!reported.has(version)) console.warn(`skipped: QEMU ${version} is not installed; run test/qemu/install.sh`);
    reported.add(version);
  }
  return missing.length > 0;
}
