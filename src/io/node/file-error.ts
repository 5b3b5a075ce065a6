/**
 * System errors in one form: `cannot read PATH: no such file`. Node's own text names the system call, and a path that the
 * user may never have seen. The error keeps its `code` and everything else.
 */

/** What the user wanted, by the system call that failed. */
const verbs: Readonly<Record<string, string>> = {
  ...{ mkdir: 'create', write: 'write', ftruncate: 'write', fsync: 'write', rename: 'write' },
  ...{ unlink: 'remove', rmdir: 'remove' },
};

const reasons: Readonly<Record<string, string>> = {
  EISDIR: 'it is a directory',
  ENOTDIR: 'a part of the path is not a directory',
};

/** What is known about a failed access. */
export interface FileAccess {
  /** Default: what the system call does. */
  verb?: 'read' | 'write' | 'create';
  /** The name that the user knows. Default: the path of the error. */
  path?: string;
  /** Where in the file, in bytes. */
  at?: number;
}

/** Rewrites the message of a system error. Anything else is returned as it is. */
export function fileError(error: unknown, { verb, path, at }: FileAccess = {}): unknown {
  if (!(error instanceof Error)) return error;
  const { code, syscall = '', path: own, dest } = error as NodeJS.ErrnoException & { dest?: string };
  const name = path ?? dest ?? own;
  if (code === undefined || name === undefined || !error.message.startsWith(`${code}: `)) return error;
  const stated = error.message.slice(code.length + 2).replace(/, .*$/s, '');
  const action = verb ?? verbs[syscall] ?? 'read';
  const reason = code === 'ENOENT' && action === 'read' ? 'no such file' : (reasons[code] ?? stated);
  const place = at === undefined ? '' : ` (at 0x${at.toString(16)})`;
  error.message = `cannot ${action} ${name}: ${reason}${place}`;
  return error;
}

/** Does work that accesses a file, and rewrites the system error if it fails. */
export function accessing<Result>(access: FileAccess, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw fileError(error, access);
  }
}
