/** Builds dist/ unless it is newer than all its sources, so that `npm install && npm test` builds once. */
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';

const inputs = [
  ...['src', 'assembly', 'scripts'],
  ...['package.json', 'package-lock.json', 'asconfig.json', 'tsconfig.json', 'tsup.config.ts'],
];
/** The first and the last file that the build writes. */
const outputs = ['dist/kernel.simd.wasm', 'dist/node.d.ts'];

const changed = (path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs;

/** When a file, or anything in a directory, last changed. Removing a file changes its directory. */
function newest(path) {
  const own = changed(path) ?? 0;
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return own;
  return readdirSync(path).reduce((latest, name) => Math.max(latest, newest(`${path}/${name}`)), own);
}

const built = Math.min(...outputs.map((path) => changed(path) ?? 0));
if (built <= Math.max(...inputs.map(newest))) {
  const { status } = spawnSync('npm', ['run', 'build'], { stdio: 'inherit', shell: process.platform === 'win32' });
  process.exitCode = status ?? 1;
}
