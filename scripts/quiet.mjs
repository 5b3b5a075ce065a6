/** Runs a command and prints its output only if it fails: `node scripts/quiet.mjs COMMAND ARGUMENT…`. */
import { spawnSync } from 'node:child_process';

const [command, ...args] = process.argv.slice(2);
const { status, error, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 28 });
if (status !== 0) {
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}`);
  if (error !== undefined) process.stderr.write(`${error.message}\n`);
  process.exitCode = status ?? 1;
}
