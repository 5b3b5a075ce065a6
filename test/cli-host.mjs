/**
 * Runs the built command line many times in one process, which saves the start of Node and the loading of modules:
 * most of the time of a short command. Each request is a message `{ args, cwd, env }`, and each answer
 * `{ code, stdout, stderr, cpuMs }`.
 *
 * The main module is evaluated anew each time. It only uses what is set here: the arguments, the environment, the
 * folder, the two outputs, and the exit code.
 */
import { Writable } from 'node:stream';

const cli = new URL('../dist/cli.js', import.meta.url).href;
const ownFolder = process.cwd();
const isAdded = (event) => event === 'exit' || String(event).startsWith('SIG');
let runs = 0;

/** Keeps what is written to a standard output, which is a pipe. */
class Kept extends Writable {
  pieces = [];

  constructor(fd) {
    super();
    this.fd = fd;
  }

  _write(bytes, _encoding, done) {
    // The writer may use its buffer again.
    this.pieces.push(Buffer.from(bytes));
    done();
  }

  get bytes() {
    return Buffer.concat(this.pieces);
  }
}

function setEnv(env) {
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, env);
}

async function run({ args, cwd, env }) {
  const [out, err] = [new Kept(1), new Kept(2)];
  Object.defineProperty(process, 'stdout', { value: out, configurable: true });
  Object.defineProperty(process, 'stderr', { value: err, configurable: true });
  setEnv(env);
  process.chdir(cwd ?? ownFolder);
  process.argv.splice(1, process.argv.length, cli, ...args);
  process.exitCode = undefined;
  const before = process.cpuUsage();
  await import(`${cli}?run=${runs++}`);
  const { user, system } = process.cpuUsage(before);
  const code = process.exitCode ?? 0;
  for (const listener of process.listeners('exit')) listener(code);
  for (const event of process.eventNames().filter(isAdded)) process.removeAllListeners(event);
  process.exitCode = undefined;
  return { code, stdout: out.bytes, stderr: err.bytes.toString(), cpuMs: (user + system) / 1000 };
}

process.on('message', async (request) => {
  try {
    process.send(await run(request));
  } catch (error) {
    process.send({ failure: String(error?.stack ?? error) });
  }
});
