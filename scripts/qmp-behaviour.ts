/**
 * What vmferry's own QMP server does with each command, event, capability and parameter. What is not listed is known to
 * the schema only: its arguments are checked, and nothing carries it out yet. docs/qmp.md shows it.
 */

interface Behaviour {
  readonly commands: Readonly<Record<string, string>>;
  readonly events: Readonly<Record<string, string>>;
  readonly capabilities: Readonly<Record<string, string>>;
  readonly parameters: Readonly<Record<string, string>>;
}

export const behaviour: Behaviour = {
  commands: {
    qmp_capabilities: 'as in QEMU, with oob',
    'query-version': 'the release that the server stands for',
    'query-commands': 'the commands that it answers',
    'query-qmp-schema': 'the commands that it answers, all events, and their types',
  },
  events: {},
  capabilities: {},
  parameters: {},
};
