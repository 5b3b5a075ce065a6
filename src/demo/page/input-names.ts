/** Short names for inputs. */
import type { FileInput } from '../protocol.ts';

export function nameOf(input: FileInput): string {
  if ('url' in input) return input.url;
  const [first, ...others] = input.files;
  return `${first?.name ?? 'nothing'}${others.length === 0 ? '' : ` and ${others.length} more`}`;
}
