/** Finds a Chromium to test in. Without one the tests are skipped, unless VMFERRY_REQUIRE_CHROMIUM=1. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

const names = ['chromium', 'chromium-browser', 'google-chrome'];

export function findChromium(): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  const path = folders.flatMap((folder) => names.map((name) => join(folder, name))).find(isExecutable);
  if (path !== undefined) return path;
  const reason = `none of ${names.join(', ')} is in PATH`;
  if (process.env.VMFERRY_REQUIRE_CHROMIUM === '1') throw new Error(`a browser is required, but ${reason}`);
  console.warn(`skipping the tests in a browser: ${reason}`);
  return undefined;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** No network but the test's own server, nothing in the background. */
export const launchFlags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
