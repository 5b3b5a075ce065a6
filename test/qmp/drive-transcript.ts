/** Transcripts with disks (test/fixtures/qmp/drives): two qcow2 images and a raw one, the same in every run. */
import { makeDisk } from '../write/qcow2-disk.ts';
import { withoutTimes } from './transcript.ts';

export const driveTranscripts = ['drives/bitmaps', 'drives/snapshots'];

/** The images by the names of their nodes. The raw one and the second have the same size, the first another one. */
export const driveImages = (): Map<string, Buffer> =>
  new Map([
    ['disk0', makeDisk({ clusters: 4096, allocated: [0, 1, 100, 4095] })],
    ['disk1', makeDisk({ clusters: 2048, allocated: [5] })],
    ['disk2', Buffer.alloc(1 << 20, 1)],
  ]);

/** Whether events follow the answer to this command, up to the end of a job. */
export const startsJob = (sent: string): boolean => /"execute": "snapshot-/.test(sent);
export const endsJob = (line: string): boolean => /"status": "concluded"/.test(line);

/** The answer first, then the events in order; without paths, times, and sizes that depend on how a file was written. */
export function settled(lines: readonly string[]): string[] {
  const plain = lines.map((line) =>
    withoutTimes(line)
      .replace(/"(\/[^"]*\/)(disk\d)"/g, '"<dir>/$2"')
      .replace(/"#block\d+"/g, '"#block"')
      .replace(/"(vm-clock-sec|vm-clock-nsec|date-sec|date-nsec|actual-size)": \d+/g, '"$1": 0')
      .replace(/"vm-state-size": [1-9]\d*/g, '"vm-state-size": 1')
      .replace(/("image": \{"virtual-size": )\d+(, "filename": "[^"]*", "format": "file")/g, '$10$2'),
  );
  return [...plain.filter((line) => !/"event"/.test(line)), ...plain.filter((line) => /"event"/.test(line))];
}
