/**
 * A command of `vmferry` and its facts: notes, exit codes, examples, its JSON, and rules for combining options.
 * `--help`, docs/cli.md, the man page and the completion scripts are made from them.
 */
import { type AddHelpTextContext, Command } from 'commander';
import { type CommandFacts, list } from './command-facts.ts';
import { commonExitCodes, type ExitCodes, UsageError } from './exit-codes.ts';
import { renderHelp } from './help.ts';

export class CliCommand extends Command {
  declare readonly commands: readonly CliCommand[];
  #facts: CommandFacts = { notes: [], exitCodes: {}, json: [], examples: [], rules: {} };

  constructor(name?: string) {
    super(name);
    this.addHelpText('after', ({ command }: AddHelpTextContext) => {
      const { facts, exitCodes } = command as CliCommand;
      return renderHelp(facts, exitCodes);
    });
  }

  override createCommand(name?: string): CliCommand {
    return new CliCommand(name);
  }

  get facts(): Readonly<CommandFacts> {
    return this.#facts;
  }

  /** All its exit codes with their meanings, including the common ones. */
  get exitCodes(): ExitCodes {
    return { ...commonExitCodes, ...this.#facts.exitCodes };
  }

  describe(facts: Partial<CommandFacts>): this {
    this.#facts = { ...this.#facts, ...facts };
    return this;
  }

  /** @throws UsageError for options that do not go together */
  checkOptions(): void {
    const { oneOf = [], needs = {}, excludes = {}, check } = this.#facts.rules;
    for (const group of oneOf) {
      const [first, second] = group.filter((flag) => this.#isGiven(flag));
      if (first !== undefined && second !== undefined) throw conflict(first, second);
    }
    for (const [flag, others] of Object.entries(excludes)) {
      const other = this.#isGiven(flag) ? others.find((each) => this.#isGiven(each)) : undefined;
      if (other !== undefined) throw conflict(flag, other);
    }
    for (const [flag, others] of Object.entries(needs)) {
      if (!this.#isGiven(flag) || others.some((each) => this.#isGiven(each))) continue;
      throw new UsageError(`${flag} goes with ${list(others, 'or')}`);
    }
    check?.(this.args, this.opts() as never, (flag) => this.#isGiven(flag));
  }

  /** Whether the command line could have the option, and does not have it. */
  couldTake(flag: string): boolean {
    if (!this.options.some(({ long }) => long === flag) || this.#isGiven(flag)) return false;
    const others = this.#facts.rules.excludes?.[flag] ?? [];
    return !others.some((each) => this.#isGiven(each));
  }

  /** Whether the command line has the option; a default does not count. */
  #isGiven(flag: string): boolean {
    const option = this.options.find(({ long }) => long === flag);
    if (option === undefined) throw new Error(`${this.name()} has no option ${flag}`);
    return this.getOptionValueSource(option.attributeName()) === 'cli';
  }
}

const conflict = (one: string, other: string) => new UsageError(`${one} cannot be used with ${other}`);
