/** The image tools that install.sh unpacked beside each QEMU. */
import { execFile } from 'node:child_process';
import { existsSync, openSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { NodeFile } from '../../src/io/node/file.ts';
import type { QemuVersion } from './qemu.ts';

const run = promisify(execFile);

/** Path of the wrapper that starts a tool. */
const toolPath = (version: QemuVersion, tool: 'img' | 'io') =>
  join(process.env.VMFERRY_QEMU_DIR || join(homedir(), '.cache/vmferry-qemu'), version, `run-${tool}`);

/** For `describe.skipIf`: whether qemu-img is missing and not required. */
export function lacksQemuImg(): boolean {
  if (process.env.VMFERRY_REQUIRE_QEMU === '1') return false;
  const isMissing = !existsSync(toolPath('7.2', 'img')) || !existsSync(toolPath('10.0', 'img'));
  if (isMissing) console.warn('skipped: qemu-img is not installed; run test/qemu/install.sh');
  return isMissing;
}

/** Runs qemu-img. @throws with what it printed */
export async function qemuImg(version: QemuVersion, ...args: string[]): Promise<string> {
  return (await run(toolPath(version, 'img'), args)).stdout;
}

/** Runs commands of qemu-io on an image. @throws with what it printed, also if a pattern is not what was read */
export async function qemuIo(version: QemuVersion, path: string, ...commands: string[]): Promise<void> {
  const args = ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), path];
  const { stdout } = await run(toolPath(version, 'io'), args);
  if (/failed|verif/i.test(stdout)) throw new Error(stdout);
}

/** Whether qemu-img finds an image free of errors and leaks. Its report if not. */
export async function checkImage(version: QemuVersion, path: string): Promise<string> {
  try {
    return (await qemuImg(version, 'check', '-f', 'qcow2', path)).split('\n')[0] as string;
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    return `${stdout}${stderr}`;
  }
}

/** What it says about a good image. */
export const cleanImage = 'No errors were found on the image.';

/** The names in `qemu-img snapshot -l`. */
export async function listSnapshots(version: QemuVersion, path: string): Promise<{ name: string; size: number }[]> {
  const info = JSON.parse(await qemuImg(version, 'info', '--output=json', path));
  return (info.snapshots ?? []).map((each: Record<string, unknown>) => ({
    name: each.name,
    size: each['vm-state-size'],
  }));
}

/** Opens a file for reading and writing. */
export const openWritable = (path: string) => new NodeFile(openSync(path, 'r+'), path, statSync(path).size);
