/**
 * The capabilities and parameters of one VM: set all or none, with QEMU's checks, in QEMU's order, and QEMU's texts.
 */
import { type CapabilityContext, capabilityRules } from './capability-rules.ts';
import { type ParameterValues, refuseParameters } from './parameter-rules.ts';
import { type Parameter, parameters } from './qapi/parameters.ts';
import type { Schema } from './qapi/schema.ts';

/** A setting that QEMU refuses, with QEMU's text. */
export class SettingError extends Error {
  override readonly name = 'SettingError';
}

/** What the checks must know about the VM. */
export type SettingContext = Omit<CapabilityContext, 'before' | 'parameters'>;

const table: Readonly<Record<string, Parameter>> = parameters;

/** The capabilities and parameters of one VM. */
export class MigrationSettings {
  #on: ReadonlySet<string> = new Set();
  #values: ParameterValues;

  constructor(readonly schema: Schema) {
    const type = schema.types.get('MigrationParameters');
    const members = type?.kind === 'struct' ? type.members : [];
    const defaults = members.map(({ name }) => [name, table[name]?.default] as const);
    this.#values = Object.fromEntries(defaults.filter(([, value]) => value !== undefined));
  }

  /** Whether a capability is on. */
  isOn(capability: string): boolean {
    return this.#on.has(capability);
  }

  /** What query-migrate-capabilities returns: all of the release, in QEMU's order. */
  get capabilities(): { capability: string; state: boolean }[] {
    const names = this.schema.valuesOf('MigrationCapability');
    return names.map((capability) => ({ capability, state: this.#on.has(capability) }));
  }

  /** What query-migrate-parameters returns. */
  get parameters(): ParameterValues {
    return this.#values;
  }

  /** Switches capabilities. A later entry wins. @throws SettingError and changes nothing */
  setCapabilities(changes: readonly { capability: string; state: boolean }[], context: SettingContext): void {
    const on = new Set(this.#on);
    for (const { capability, state } of changes) {
      if (state) on.add(capability);
      else on.delete(capability);
    }
    const known: CapabilityContext = { ...context, before: this.#on, parameters: this.#values };
    for (const { since, until, refuse } of capabilityRules) {
      if (since !== undefined && !this.schema.isFrom(since)) continue;
      if (until !== undefined && !this.schema.isUntil(until)) continue;
      const text = refuse(on, known);
      if (text !== undefined) throw new SettingError(text);
    }
    this.#on = on;
  }

  /** Sets parameters. null is an empty string. @throws SettingError and changes nothing */
  setParameters(changes: ParameterValues): void {
    const kept = Object.entries(changes).filter(([name]) => this.schema.isFrom(table[name]?.keptSince ?? '0.0'));
    const given = kept.map(([name, value]) => [name, value === null ? '' : value] as const);
    const values = { ...this.#values, ...Object.fromEntries(given) };
    const text = refuseParameters(values, this.#values, this.#on);
    if (text !== undefined) throw new SettingError(text);
    this.#values = values;
  }
}
