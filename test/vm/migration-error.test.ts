import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { findingCodes, formatPlace, MigrationError, makeFinding, type Place } from '../../src/vm/migration-error.ts';

const place: Place = { source: 'guest.bin', offset: 500, coordinate: 'file' };

describe('places', () => {
  it('are printed as precisely as known', () => {
    expect(formatPlace(place)).toBe('guest.bin at 0x1f4 (500)');
    expect(formatPlace({ ...place, coordinate: 'decompressed' })).toBe('guest.bin at 0x1f4 (500, decompressed)');
    expect(formatPlace({ ...place, section: 'ram', block: 'pc.ram', page: 0 })).toBe(
      'guest.bin at 0x1f4 (500), section ram, block pc.ram, page 0',
    );
  });
});

describe('a MigrationError', () => {
  const error = new MigrationError('bad-footer', 'expected a footer', place);

  it('has its code and its place in the message and as properties', () => {
    expect(error.message).toBe('expected a footer [bad-footer] in guest.bin at 0x1f4 (500)');
    expect(error).toMatchObject({ name: 'MigrationError', code: 'bad-footer', place, detail: 'expected a footer' });
    expect(error).toBeInstanceOf(Error);
  });

  it('is the same fact as a finding', () => {
    const finding = error.toFinding();
    expect(finding).toEqual({ severity: 'error', code: 'bad-footer', message: 'expected a footer', place });
    expect(MigrationError.from(finding)).toMatchObject({ message: error.message, code: error.code, place });
  });
});

describe('findings', () => {
  it('have the severity of their code', () => {
    expect(makeFinding('trailing-data', 'x', place).severity).toBe('warning');
    expect(makeFinding('bad-bitmap', 'x', place).severity).toBe('error');
    expect(makeFinding('no-footers', 'x', place).severity).toBe('info');
  });

  it('are all documented in docs/findings.md with their severity, and nothing else is', () => {
    const text = readFileSync(new URL('../../docs/findings.md', import.meta.url), 'utf8');
    const rows = [...text.matchAll(/^\|\s*`([a-z-]+)`\s*\|\s*(error|warning|info)\s*\|/gm)];
    const documented = Object.fromEntries(rows.map(([, code, severity]) => [code, severity]));
    expect(documented).toEqual(
      Object.fromEntries(Object.entries(findingCodes).map(([code, [severity]]) => [code, severity])),
    );
    expect(rows).toHaveLength(Object.keys(findingCodes).length);
  });
});
