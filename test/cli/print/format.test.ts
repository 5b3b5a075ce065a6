import { describe, expect, it } from 'vitest';
import { printable } from '../../../src/cli/print/format.ts';

describe('text from a file', () => {
  it('is shown as UTF-8 if its bytes are valid, and unchanged otherwise', () => {
    const bytes = (text: string) => Buffer.from(text, 'utf8').toString('latin1');
    expect(printable(bytes('Speicher für 内存'))).toBe('Speicher für 内存');
    expect(printable('caf\u00e9')).toBe('café');
    expect(printable('内存 é')).toBe('内存 é');
    expect(printable('pc.ram')).toBe('pc.ram');
  });

  it('has no control characters left, however they are encoded', () => {
    expect(printable('a\u001b[31m\u009b')).toBe('a\\x1b[31m\\x9b');
    expect(printable('\xc2\x9b')).toBe('\\x9b');
  });
});
