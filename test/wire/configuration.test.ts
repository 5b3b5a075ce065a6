import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Configuration } from '../../src/vm/flow.ts';
import { MigrationError } from '../../src/vm/migration-error.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { decodeConfiguration, encodeConfiguration } from '../../src/wire/configuration.ts';
import { counted, hex, join, subsection, u32 } from '../oracle/build.ts';
import { run } from './decoding.ts';

/** Decodes a body. The number of bytes taken must not depend on chunks. */
function decode(body: Uint8Array): { configuration: Configuration; length: number } {
  const results = [body.length, 1, 7].map((chunk) => {
    let length = 0;
    const configuration = run(body, chunk, function* (window) {
      const value = yield* decodeConfiguration(window);
      length = window.offset;
      return value;
    });
    return { configuration, length };
  });
  for (const result of results) expect(result).toEqual(results[0]);
  return results[0] as { configuration: Configuration; length: number };
}

/** Encodes a body, without the type byte. */
function encode(configuration: Configuration): Uint8Array {
  const out = new ByteWriter();
  encodeConfiguration(out, configuration);
  expect(out.bytes()[0]).toBe(7);
  return out.bytes().slice(1);
}

function failure(body: Uint8Array): MigrationError {
  try {
    decode(body);
  } catch (error) {
    if (error instanceof MigrationError) return error;
    throw error;
  }
  throw new Error('expected a MigrationError');
}

const none = join(u32(4), 'none');

describe('configuration', () => {
  it('decodes the body of a machine without subsections', () => {
    expect(decode(none)).toEqual({ configuration: { machine: 'none', capabilities: [] }, length: 8 });
  });

  it('gives the ids of a file of changes, and refuses it if some of its marks are missing', () => {
    const changes = { base: '0123456789abcdef', content: 'fedcba9876543210' };
    const configuration = { machine: 'none', capabilities: ['mapped-ram', 'vmferry-changes'], changes };
    const body = encode(configuration);
    expect(Buffer.from(body).subarray(-16).toString('hex')).toBe('0123456789abcdeffedcba9876543210');
    expect(decode(body)).toEqual({ configuration, length: body.length });
    const { changes: _, ...unnamed } = configuration;
    for (const half of [
      unnamed,
      { ...configuration, capabilities: ['mapped-ram'] },
      { ...configuration, capabilities: ['vmferry-changes'] },
    ]) {
      expect(failure(encode(half))).toMatchObject({
        code: 'bad-configuration',
        message: expect.stringMatching(/all or none/),
      });
    }
  });

  it('decodes the three subsections that QEMU writes', () => {
    const body = join(
      u32(4),
      'virt',
      hex('05 1e'),
      'configuration/target-page-bits',
      hex('00000001 0000000c'),
      hex('05 1a'),
      'configuration/capabilities',
      hex('00000001 00000001 0a'),
      'mapped-ram',
      hex('05 12'),
      'configuration/uuid',
      hex('00000001 0123456789abcdef0011223344556677'),
    );
    expect(decode(body)).toEqual({
      configuration: {
        machine: 'virt',
        targetPageBits: 12,
        capabilities: ['mapped-ram'],
        uuid: '0123456789abcdef0011223344556677',
      },
      length: body.length,
    });
    expect(encode(decode(body).configuration)).toEqual(body);
  });

  it('accepts an empty machine name', () => {
    expect(decode(new Uint8Array(4)).configuration.machine).toBe('');
  });

  it.each([
    ['another type', hex('01 00000001')],
    ['0x05 before a name of another section', join([5], counted('device/subsection'), u32(1))],
    ['0x05 before a name that is only the prefix', join([5], counted('configuration/'), u32(1))],
    ['0x05 and the end', [5]],
  ])('ends before %s', (_, rest) => {
    expect(decode(join(none, rest))).toEqual({ configuration: { machine: 'none', capabilities: [] }, length: 8 });
  });

  it.each([10, 16])('accepts %i target page bits', (bits) => {
    const body = join(none, subsection('configuration/target-page-bits', u32(bits)));
    expect(decode(body).configuration.targetPageBits).toBe(bits);
  });

  it.each([
    ['a machine name over 1024 bytes', u32(1025), 0],
    ['9 target page bits', join(none, subsection('configuration/target-page-bits', u32(9))), 8 + 2 + 30 + 4],
    ['17 target page bits', join(none, subsection('configuration/target-page-bits', u32(17))), 8 + 2 + 30 + 4],
    ['257 capabilities', join(none, subsection('configuration/capabilities', u32(257))), 8 + 2 + 26 + 4],
    ['version 2 of a subsection', join(none, [5], counted('configuration/uuid'), u32(2)), 8 + 2 + 18],
    ['an unknown subsection', join(none, subsection('configuration/colour', u32(1))), 8],
  ])('refuses %s, and names the place', (_, body, offset) => {
    expect(failure(Uint8Array.from(body))).toMatchObject({ code: 'bad-configuration', place: { offset } });
  });

  it('reports every beginning of a body as truncated, or reads a shorter body', () => {
    const configuration = { machine: 'pc', targetPageBits: 12, capabilities: ['a', 'bcd'], uuid: '0f'.repeat(16) };
    const body = encode(configuration);
    const subsections = [6, 6 + 40, 6 + 40 + 42];
    for (let length = 0; length < body.length; length++) {
      const cut = body.subarray(0, length);
      // The first 15 bytes of a subsection could be something else.
      if (subsections.some((start) => length >= start && length < start + 16)) {
        expect(decode(cut).configuration.machine).toBe('pc');
      } else expect(failure(cut), `${length} bytes`).toMatchObject({ code: 'truncated', place: { offset: length } });
    }
  });

  it('decodes what it encodes', () => {
    const latin1 = (maxLength: number) =>
      fc
        .array(fc.integer({ min: 0, max: 255 }), { maxLength })
        .map((bytes) => bytes.map((byte) => String.fromCharCode(byte)).join(''));
    const configurations = fc.record(
      {
        machine: latin1(300),
        targetPageBits: fc.integer({ min: 10, max: 16 }),
        capabilities: fc.array(latin1(255), { maxLength: 20 }),
        uuid: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('hex')),
      },
      { requiredKeys: ['machine', 'capabilities'] },
    );
    fc.assert(
      fc.property(configurations, fc.constantFrom(0x00, 0x01, 0x05, 0x7e), (configuration, next) => {
        const body = encode(configuration);
        const decoded = decode(join(body, [next]));
        expect(decoded).toEqual({ configuration, length: body.length });
      }),
    );
  });
});
