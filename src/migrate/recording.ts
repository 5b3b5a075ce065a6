/**
 * Keeps the bytes of a live migration as they came, for a later look at it (`verify`, `inspect`). With TLS they are the
 * decrypted ones.
 *
 *     main          what the source sent on the main connection
 *     return-path   what it was answered there
 *     channel.N     multifd channel N
 *     preempt       the preempt channel; a second one is preempt.1
 *
 * A source that goes on after a break in postcopy makes other lines: main.1 and return-path.1, and so on.
 *
 * A recording that fails, because the disk is full perhaps, ends; the migration goes on.
 */
import type { Connection } from '../io/connection.ts';
import { WrappedConnection } from '../io/wrapped-connection.ts';

/** A file of a recording. */
export interface RecordingFile {
  /** Adds bytes at the end. They may be overwritten afterwards. */
  write(bytes: Uint8Array): Promise<void> | void;
  /** Closes the file. */
  close(): Promise<void> | void;
}

/** Where the files of a recording are. */
export interface RecordingFolder {
  /** Begins a file. One with that name is replaced. */
  open(name: string): Promise<RecordingFile> | RecordingFile;
}

/** What a connection is for. A number is that of a multifd channel. */
export type RecordedRole = 'main' | 'preempt' | number;

/** Keeps the bytes of the connections that it is given. */
export class Recording {
  readonly #folder: RecordingFolder;
  readonly #files = new Map<string, Promise<RecordingFile>>();
  #failure: { error: unknown } | undefined;
  #preempts = 0;
  #mains = 0;

  constructor(folder: RecordingFolder) {
    this.#folder = folder;
  }

  /** What ended the recording early, if anything did. */
  get failure(): { error: unknown } | undefined {
    return this.#failure;
  }

  /** Returns a connection that is recorded: what is read from it, and for `main` what is written to it. */
  readonly wrap = (connection: Connection, role: RecordedRole): Connection => {
    const suffix = (count: number) => (count === 0 ? '' : `.${count}`);
    if (role === 'main') {
      const again = suffix(this.#mains++);
      return new RecordedConnection(connection, this, `main${again}`, `return-path${again}`);
    }
    const name = role === 'preempt' ? `preempt${suffix(this.#preempts++)}` : `channel.${role}`;
    return new RecordedConnection(connection, this, name, undefined);
  };

  /** Adds bytes to a file. Never throws. */
  async add(name: string, bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) return;
    try {
      let file = this.#files.get(name);
      if (file === undefined) {
        file = Promise.resolve(this.#folder.open(name));
        this.#files.set(name, file);
      }
      await (await file).write(bytes);
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /** Closes the files. Never throws: see {@link failure}. */
  async close(): Promise<void> {
    for (const file of this.#files.values()) {
      try {
        await (await file).close();
      } catch (error) {
        this.#failure ??= { error };
      }
    }
    this.#files.clear();
  }
}

class RecordedConnection extends WrappedConnection {
  readonly #recording: Recording;
  readonly #name: string;
  readonly #answers: string | undefined;

  constructor(line: Connection, recording: Recording, name: string, answers: string | undefined) {
    super(line);
    this.#recording = recording;
    this.#name = name;
    this.#answers = answers;
  }

  override async read(target: Uint8Array, position: number): Promise<number> {
    const count = await this.line.read(target, position);
    if (count > 0) await this.#recording.add(this.#name, target.subarray(0, count));
    return count;
  }

  override async write(bytes: Uint8Array): Promise<void> {
    // Before it is sent: once the peer has the last message, the process may end.
    if (this.#answers !== undefined) await this.#recording.add(this.#answers, bytes);
    return this.line.write(bytes);
  }
}
