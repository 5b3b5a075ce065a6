/** Makes answers complete: what an engine does not count is 0, and what the schema calls an integer is one. */
import type { Schema } from '../../schema/qapi/schema.ts';

const isNumberType = (type: string) => /^(u?int\d*|size)$/.test(type);

/**
 * Shapes a value like a struct of the schema: its members only, required numbers as 0 where they are missing, integers
 * without fractions.
 */
export function shapeAs(schema: Schema, name: string, value: object): Record<string, unknown> {
  const type = schema.types.get(name);
  if (type?.kind !== 'struct') throw new RangeError(`expected a struct of the schema, got ${name}`);
  const given = value as Readonly<Record<string, unknown>>;
  const shaped: Record<string, unknown> = {};
  for (const { name: member, type: memberType, isOptional } of type.members) {
    const present = given[member];
    if (present !== undefined) shaped[member] = shapeValue(schema, memberType, present);
    else if (!isOptional) shaped[member] = 0;
  }
  return shaped;
}

function shapeValue(schema: Schema, type: string, value: unknown): unknown {
  if (typeof value === 'number' && isNumberType(type)) return Math.floor(value);
  const isStruct = schema.types.get(type)?.kind === 'struct';
  return isStruct && typeof value === 'object' && value !== null ? shapeAs(schema, type, value) : value;
}
