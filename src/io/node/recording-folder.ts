/** The files of a recording (`migrate/recording.ts`), in a directory. */
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { accessing } from './file-error.ts';

const names = /^(main|return-path|preempt(\.\d+)?|channel\.\d+)$/;

/** A file of a recording. */
export interface DirectoryFile {
  /** Adds bytes at the end. @throws the system's error */
  write(bytes: Uint8Array): void;
  /** Closes the file. */
  close(): void;
}

/** A directory that takes the files of a recording. */
export class RecordingDirectory {
  readonly #path: string;

  /** Makes the directory, or removes the files of an earlier recording from it. @throws the system's error */
  constructor(path: string) {
    this.#path = path;
    mkdirSync(path, { recursive: true });
    for (const name of readdirSync(path)) if (names.test(name)) rmSync(join(path, name));
  }

  /** Begins a file. @throws the system's error */
  open(name: string): DirectoryFile {
    const path = join(this.#path, name);
    const fd = accessing({ path, verb: 'create' }, () => openSync(path, 'w', 0o600));
    return {
      write: (bytes) =>
        accessing({ path, verb: 'write' }, () => {
          for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
        }),
      close: () => closeSync(fd),
    };
  }
}
