import { describe, expect, it } from 'vitest';
import { toJson } from '../../src/cli/json.ts';
import { type AsJson, jsonReplacer, type VersionedJson } from '../../src/tasks/json.ts';

interface Facts {
  machine: string | undefined;
  compression?: number;
  parts: { old?: Uint8Array; size: bigint; error: { code: string } | undefined }[];
}
interface FactsJson extends VersionedJson, AsJson<Facts> {}

describe('a result as JSON', () => {
  const facts: Facts = { machine: undefined, parts: [{ size: 2n ** 64n, error: undefined }] };

  it('has null for a field without a value, and leaves optional fields out', () => {
    const text = '{"machine":null,"parts":[{"size":"18446744073709551616","error":null}]}';
    expect(JSON.stringify(facts, jsonReplacer)).toBe(text);
    expect(JSON.parse(toJson<FactsJson>(facts))).toEqual({ jsonVersion: 1, ...JSON.parse(text) });
  });

  it('has bytes as hex', () => {
    const parts = [{ old: Uint8Array.of(0, 0xab), size: 1n, error: { code: 'truncated' } }];
    expect(JSON.parse(toJson<FactsJson>({ machine: 'pc', compression: 3, parts }))).toEqual({
      jsonVersion: 1,
      machine: 'pc',
      compression: 3,
      parts: [{ old: '00ab', size: '1', error: { code: 'truncated' } }],
    });
  });

  it('is of the type that the compiler derives', () => {
    const json: AsJson<Facts> = { machine: null, parts: [{ old: '00', size: '1', error: null }] };
    // @ts-expect-error: a field without a value is printed, as null
    const incomplete: AsJson<Facts> = { parts: [] };
    // @ts-expect-error: an optional field is not null
    const another: AsJson<Facts> = { machine: null, compression: null, parts: [] };
    // @ts-expect-error: an optional field that is undefined would be printed as null
    toJson<FactsJson>({ ...facts, compression: undefined });
    // @ts-expect-error: no field may be missing
    toJson<FactsJson>({ parts: [] });
    expect([json, incomplete, another].map((each) => each.parts.length)).toEqual([1, 0, 0]);
  });
});
