/** Captures that several tests of a file use: each is made when it is first needed, and removed after the last test. */
import { afterAll } from 'vitest';
import { type Capture, type CaptureOptions, capture } from './capture.ts';
import type { QemuVersion } from './qemu.ts';

/** Returns what makes, or finds, the capture with that name of that release. */
export function captureCache<Name extends string>(
  sources: Readonly<Record<Name, (version: QemuVersion) => CaptureOptions>>,
): (source: Name, version: QemuVersion) => Promise<Capture> {
  const captures = new Map<string, Promise<Capture>>();
  afterAll(async () => {
    for (const made of captures.values()) (await made).dispose();
  });
  return (source, version) => {
    const name = `${source} ${version}`;
    const made = captures.get(name) ?? capture(sources[source](version));
    captures.set(name, made);
    return made;
  };
}
