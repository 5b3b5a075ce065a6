#!/usr/bin/env node
/** The command line: reads the arguments, runs the command, and turns its end into an exit code. */
import { CommanderError } from 'commander';
import { ExitCode } from './exit-codes.ts';
import { handleEarlySignals } from './live/early-signals.ts';
import { reportError, setManner } from './messages.ts';
import { buildProgram, isLive } from './program.ts';
import { handleSignals, idle, isReaderGone } from './run.ts';

const words = process.argv.slice(2);
/** Only words before `--` can be flags. */
const flags = words.slice(0, words.includes('--') ? words.indexOf('--') : undefined);
// Until the command line is parsed, this guess decides how an error is printed.
setManner({ quiet: false, json: flags.includes('--json'), couldBePartial: false, isLive: isLive(words[0]) });

const program = await buildProgram(words[0]);
handleSignals();
if (isLive(words[0])) handleEarlySignals();
try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError && (error.exitCode === 0 || error.code === 'commander.help')) {
    // Help and version have been printed; help is an error where a command is missing.
    process.exitCode = error.exitCode === 0 ? ExitCode.ok : ExitCode.trouble;
  } else if (isReaderGone(error)) {
    process.exitCode = ExitCode.ok;
    await idle();
  } else process.exitCode = reportError(error);
}
