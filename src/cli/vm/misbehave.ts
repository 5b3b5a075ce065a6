/** The value of --misbehave: how a VM misbehaves. */
import { InvalidArgumentError } from 'commander';
import type { Misbehaviour } from '../../migrate/misbehaviour.ts';
import { parseDuration } from '../../read/units.ts';

type Read = (value: string | undefined) => Partial<Misbehaviour>;

const time = (text: string | undefined, otherwise: number) =>
  text === undefined ? otherwise : parseDuration(text, 'ms');

function percentage(name: string, text = ''): number {
  const [, digits] = /^(\d{1,3}(?:\.\d+)?)%?$/.exec(text) ?? [];
  if (digits !== undefined && Number(digits) <= 100) return Number(digits);
  throw new RangeError(`expected ${name}=PERCENT with 0 to 100, got "${text}"`);
}

function none(name: string, text: string | undefined): true {
  if (text === undefined) return true;
  throw new RangeError(`${name} has no value, got "${text}"`);
}

function seedOf(text = ''): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new RangeError(`expected seed=N with up to 9 digits, got "${text}"`);
}

const readers: Readonly<Record<string, Read>> = {
  'late-greeting': (value) => ({ lateGreeting: time(value, 500) }),
  'early-events': (value) => ({ earlyEvents: none('early-events', value) }),
  'split-answers': (value) => ({ splitAnswers: none('split-answers', value) }),
  'late-answers': (value) => ({ lateAnswers: time(value, 200) }),
  fail: (value) => ({ fail: percentage('fail', value) }),
  stall: (value) => ({ stall: percentage('stall', value) }),
  'never-converges': (value) => ({ neverConverges: percentage('never-converges', value ?? '0') }),
  seed: (value) => ({ seed: seedOf(value) }),
};

/** Parses `NAME[=VALUE],…,seed=N`. */
export function parseMisbehaviour(text: string): Misbehaviour {
  const how: Misbehaviour = { seed: 1 };
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    const [name, value] = at < 0 ? [part] : [part.slice(0, at), part.slice(at + 1)];
    const read = Object.hasOwn(readers, name) ? readers[name] : undefined;
    try {
      if (read === undefined) throw new RangeError(`expected ${Object.keys(readers).join(', ')}; got "${name}"`);
      Object.assign(how, read(value));
    } catch (error) {
      throw error instanceof RangeError ? new InvalidArgumentError(error.message) : error;
    }
  }
  return how;
}
