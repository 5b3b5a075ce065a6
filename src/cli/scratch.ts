/** The `--scratch DIR` option of commands that may need a scratch file. */
import { tmpdir } from 'node:os';
import { Option } from 'commander';

export function scratchOption(purpose: string): Option {
  return new Option('--scratch <DIR>', purpose).default(tmpdir(), "the system's temporary directory");
}
