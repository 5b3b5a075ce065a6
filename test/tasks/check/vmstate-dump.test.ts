import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canBeDump, maxDump, parseVmstateDump } from '../../../src/tasks/check/vmstate-dump.ts';
import { MigrationError } from '../../../src/vm/migration-error.ts';
import { dumpText } from '../../support/saved-files.ts';

const origin = { source: 'dump.json', coordinate: 'file' } as const;
const parse = (text: string) => parseVmstateDump(text, origin);
const codeOf = (text: string): string => {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof MigrationError) return error.code;
    throw error;
  }
  return 'none';
};

describe('parseVmstateDump', () => {
  it('returns types, versions, fields and subsections unchanged', () => {
    const text = dumpText([
      {
        name: 'nic',
        version: 3,
        minimum: 2,
        fields: [
          { name: 'mac', size: 6, since: 2 },
          { name: 'rings', size: 40, conditional: true, nested: { name: 'ring', version: 1 } },
        ],
        subsections: [{ name: 'nic/tso', version: 1 }],
      },
    ]);
    expect(parse(text)).toEqual({
      machine: 'pc-i440fx-10.0',
      types: [
        {
          type: 'nic-device0',
          state: {
            name: 'nic',
            version: 3,
            minimumVersion: 2,
            fields: [
              { name: 'mac', version: 2, conditional: false, size: 6, nested: undefined },
              {
                name: 'rings',
                version: 0,
                conditional: true,
                size: 40,
                nested: { name: 'ring', version: 1, minimumVersion: 1, fields: [], subsections: [] },
              },
            ],
            subsections: [{ name: 'nic/tso', version: 1, minimumVersion: 1, fields: [], subsections: [] }],
          },
        },
      ],
    });
  });

  it('skips types without a state', () => {
    expect(parse('{"vmschkmachine":{"Name":"none"},"x":{"Name":"x"}}')).toEqual({ machine: 'none', types: [] });
  });

  it.each([
    ['nothing', ''],
    ['what is no JSON', '{"vmschkmachine": {'],
    ['a list', '[]'],
    ['other JSON', '{"devices": {}}'],
    ['a type that is not an object', '{"vmschkmachine": {"Name": "none"}, "x": 7}'],
    ['a machine that is not a string', '{"vmschkmachine": {"Name": 7}}'],
    ['a state without a name', '{"x": {"Description": {"version_id": 1, "minimum_version_id": 1}}}'],
    [
      'a version that is not a number',
      '{"x": {"Description": {"name": "x", "version_id": "1", "minimum_version_id": 1}}}',
    ],
    [
      'fields that are not list',
      '{"x": {"Description": {"name": "x", "version_id": 1, "minimum_version_id": 1, "Fields": {}}}}',
    ],
    [
      'a field without field_exists',
      '{"x": {"Description": {"name": "x", "version_id": 1, "minimum_version_id": 1, "Fields": [{"field": "f", "version_id": 0, "size": 4}]}}}',
    ],
  ])('refuses %s', (_, text) => {
    expect(codeOf(text)).toBe('bad-vmstate-dump');
  });

  it.each([
    ['nested 65 deep', `${'[['.repeat(50)}`],
    ['of more than a million values', `{"x": [${'0,'.repeat(1_000_001)}0]}`],
    ['of more than 16 MiB', `{"x": "${'x'.repeat(maxDump)}"}`],
  ])('refuses a dump %s before parsing it', (_, text) => {
    expect(codeOf(text)).toBe('limit-exceeded');
  });

  it('ignores brackets in strings', () => {
    const text = dumpText([{ name: `a ${'['.repeat(100)} \\" b`, version: 1 }]);
    expect(parse(text).types[0]?.state.name).toContain('[[[');
  });

  it('gives a MigrationError or a dump for any JSON', () => {
    const keys = fc.constantFrom(
      'x',
      'vmschkmachine',
      'Description',
      'Fields',
      'Subsections',
      'name',
      'Name',
      'version_id',
    );
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 6 },
        fc.constantFrom(0, 1, -1, 1.5, null, true, 'x'),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(keys, tie('value'), { maxKeys: 5 }),
      ),
    }));
    fc.assert(
      fc.property(value, (json) => {
        expect(['none', 'bad-vmstate-dump']).toContain(codeOf(JSON.stringify(json)));
      }),
    );
  });
});

describe('canBeDump', () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  it('is true for an object, even after white space', () => {
    expect(canBeDump(bytes('{'))).toBe(true);
    expect(canBeDump(bytes(' \r\n\t{'))).toBe(true);
  });
  it('is false for streams, other JSON, and nothing', () => {
    for (const text of ['QEVM', '[{', 'LibvirtQemudSave', '', '   ']) expect(canBeDump(bytes(text))).toBe(false);
  });
});
