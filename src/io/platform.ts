/**
 * The parts of platform objects that the library uses: Blobs, streams and signals of browsers, Node, Deno and Bun. The
 * types are structural and need neither the DOM library nor Node's types, so that any project can compile against them.
 *
 * Parameters have only the members that the library uses. Results have the platform's own type if the project's types
 * contain it, and otherwise the same few members.
 */

/** A Blob, or a File, that the library reads. */
export interface BlobLike {
  /** Its length in bytes. */
  readonly size: number;
  /** Returns the bytes from `start` up to but not including `end`. */
  slice(start?: number, end?: number): BlobLike;
  /** Returns all of its bytes. */
  arrayBuffer(): Promise<ArrayBuffer>;
  /** Returns a stream of its bytes, which is the fastest way to read them in order. Without it, slices are read. */
  stream?(): unknown;
}

/** A Blob with a name, such as a File. */
export interface FileLike extends BlobLike {
  /** The name without a directory. */
  readonly name: string;
  slice(start?: number, end?: number): BlobLike;
}

/** The platform's `File` if the project's types have one, otherwise {@link FileLike}. */
export type PlatformFile = typeof globalThis extends { File: { prototype: infer Native } } ? Native : FileLike;

/** A reader of a {@link ReadableStreamLike}. */
export interface StreamReaderLike<Chunk> {
  /** The next chunk, or `done` at the end. */
  read(): Promise<{ done: boolean; value?: Chunk | undefined }>;
  /** Ends the stream early. */
  cancel(reason?: unknown): Promise<unknown>;
}

/** A web ReadableStream (also that of `node:stream/web`) that the library reads. */
export interface ReadableStreamLike<Chunk = Uint8Array> {
  /** Whether a reader has the stream. */
  readonly locked?: boolean;
  /** Locks the stream to a reader. */
  getReader(): StreamReaderLike<Chunk>;
}

/** A Readable of `node:stream`, such as a file, a pipe, a socket or a decompressor. */
export interface NodeReadableLike {
  /** Whether it can be read: false for a stream that can only be written. */
  readonly readable?: boolean;
  /** Whether all was read. */
  readonly readableEnded?: boolean;
  /** Whether it was destroyed. */
  readonly destroyed?: boolean;
  /** Why it was destroyed, if it failed. */
  readonly errored?: Error | null;
  /** The encoding by which it decodes its bytes to strings. */
  readonly readableEncoding?: string | null;
  /** The status of a response of `node:http`. */
  readonly statusCode?: number | undefined;
  /** Its chunks. */
  [Symbol.asyncIterator](): AsyncIterator<unknown>;
  /** Passes its chunks on. Only its presence matters. */
  pipe: unknown;
  /** Adds a listener. */
  on(event: 'error', listener: (error: Error) => void): unknown;
  /** Ends it early. */
  destroy(): unknown;
}

/** What Node says about a file. */
export interface FileStatLike {
  /** Its length in bytes; 0 for anything but a regular file. */
  readonly size: number;
  /** Whether it is a regular file. */
  isFile(): boolean;
  /** Whether it is a directory. */
  isDirectory(): boolean;
  /** Whether it is a block device. */
  isBlockDevice(): boolean;
}

/** A FileHandle of `node:fs/promises`. */
export interface FileHandleInput {
  /** The file descriptor; -1 once the handle is closed. */
  readonly fd: number;
  /** Says what the file is. */
  stat(): Promise<FileStatLike>;
  /** Reads into `buffer`. */
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
  /** Reads forward. */
  createReadStream(): AsyncIterable<Uint8Array> & Pick<NodeReadableLike, 'on' | 'destroy'>;
  /** Closes the file. */
  close(): Promise<void>;
}

/** A handle of a file that the user chose, or of one in the origin private file system (FileSystemFileHandle). */
export interface BlobHandleLike {
  /** Returns the file in its present state. */
  getFile(): Promise<BlobLike>;
}

/** A URL object. */
export interface UrlLike {
  /** The whole URL. */
  readonly href: string;
  /** The scheme, such as `https:`. */
  readonly protocol: string;
}

/** A web WritableStream (also that of `node:stream/web`) that the library writes to. */
export interface WritableStreamLike<Chunk = Uint8Array> {
  /** Locks the stream to a writer. */
  getWriter(): {
    /** Waits until the stream has taken the chunk. */
    write(chunk: Chunk): Promise<unknown>;
    /** Unlocks the stream. */
    releaseLock(): void;
  };
}

/** An AbortSignal: ends long work early. */
export interface AbortSignalLike {
  /** Whether the work must end. */
  readonly aborted: boolean;
  /** The error that aborted work throws. */
  readonly reason: unknown;
  /** Throws the reason if the signal is aborted. */
  throwIfAborted(): void;
  /** Calls `listener` when the signal is aborted. */
  addEventListener(type: 'abort', listener: () => void, options?: { once?: boolean }): void;
  /** Removes a listener. */
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** The platform's `AbortSignal` if the project's types have one, otherwise {@link AbortSignalLike}. */
export type PlatformSignal = typeof globalThis extends { AbortSignal: { prototype: infer Native } }
  ? Native
  : AbortSignalLike;

/** A Response of `fetch`. */
export interface ResponseLike {
  /** The status, such as 206. */
  readonly status: number;
  /** The status in words. */
  readonly statusText: string;
  /** The response's headers. */
  readonly headers: {
    /** A header by its name; null if the server did not send it. */
    get(name: string): string | null;
  };
  /** Where it came from, after redirects. */
  readonly url?: string;
  /** Whether the body was read. */
  readonly bodyUsed?: boolean;
  /** The body; null if there is none. */
  readonly body: (ReadableStreamLike & Pick<StreamReaderLike<Uint8Array>, 'cancel'>) | null;
}

/** The part of `fetch` that the library calls. */
export type FetchLike = (
  url: string,
  init: { headers: Record<string, string>; signal: PlatformSignal },
) => Promise<ResponseLike>;

/** A file in a browser's origin private file system. */
export interface FileHandleLike {
  /** Returns the file in its present state. */
  getFile(): Promise<PlatformFile>;
}

/** A directory in a browser's origin private file system. */
export interface DirectoryHandleLike {
  /** Returns a directory in this directory. */
  getDirectoryHandle(name: string, options?: { create?: boolean }): Promise<DirectoryHandleLike>;
  /** Returns a file in this directory. */
  getFileHandle(name: string, options?: { create?: boolean }): Promise<FileHandleLike>;
  /** Removes a file or directory. */
  removeEntry(name: string, options?: { recursive?: boolean }): Promise<void>;
}

/** `navigator.locks`. */
export interface LocksLike {
  /** Calls `hold` when the lock is free, and holds it until `hold` is done. */
  request(name: string, hold: (lock: unknown) => unknown): Promise<unknown>;
  /** With `ifAvailable`, calls `hold` at once, with null if the lock is taken. */
  request(name: string, options: { ifAvailable: boolean }, hold: (lock: unknown) => unknown): Promise<unknown>;
}

/** `navigator.storage`. */
export interface StorageLike {
  /** The root of the origin private file system; missing where there is none. */
  getDirectory?(): Promise<DirectoryHandleLike>;
}

/** The storage and the locks of a platform, as in `navigator`. */
export interface Platform {
  /** `navigator.storage`. */
  readonly storage?: StorageLike | undefined;
  /** `navigator.locks`. */
  readonly locks?: LocksLike | undefined;
}
