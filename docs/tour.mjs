/**
 * The tour: the commands on a migration that a real QEMU wrote, and the proof that they extract exactly what the guest had
 * in its memory. `npm start` runs it after the build. From an installed package: `node node_modules/vmferry/docs/tour.mjs`.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const cli = join(root, 'dist/cli.js');
const sample = 'samples/guest.migration';
const blockName = 'pc.ram';

/** Shows a command, and runs it in the package's root. */
function vmferry(...args) {
  console.log(`\n$ vmferry ${args.join(' ')}`);
  const { status, error } = spawnSync(process.execPath, [cli, ...args], { cwd: root, stdio: 'inherit' });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`vmferry ${args[0]} ended with exit code ${status}`);
}

/** What QEMU said of the capture, and of the guest's memory when it had stopped. */
function readFacts() {
  const facts = JSON.parse(readFileSync(join(root, 'samples/guest.json'), 'utf8'));
  const truth = facts.truth.find(({ idstr }) => idstr === blockName);
  if (truth === undefined) throw new Error(`expected the truth of ${blockName} in samples/guest.json`);
  return { qemu: facts.qemu, truth };
}

function tour(directory) {
  const { qemu, truth } = readFacts();
  console.log(`A migration to a file, with XBZRLE, written by QEMU ${qemu.split(' ')[0]}.`);

  console.log('\nWhat is in it?');
  vmferry('inspect', sample);

  console.log('\nIs it sound? All of it is read: every record, delta, footer and device section.');
  vmferry('verify', sample);

  console.log("\nThe guest's memory, all passes and deltas applied:");
  const image = join(directory, `${blockName}.raw`);
  vmferry('extract', sample, '--block', blockName, '-o', image);

  const content = readFileSync(image);
  const sha256 = createHash('sha256').update(content).digest('hex');
  const label = `sha256 of ${blockName} in the stopped QEMU`;
  console.log(`\n${'sha256 of the image'.padEnd(label.length)}  ${sha256}`);
  console.log(`${label}  ${truth.sha256}`);
  if (content.length !== truth.length || sha256 !== truth.sha256) throw new Error('they differ');
  console.log('They are equal.');

  console.log('\nWhat were the devices doing?');
  vmferry('inspect', '--devices', sample);

  console.log(
    '\nThe same virtual machine as a mapped-ram file, whose pages QEMU (9.0 and later) reads from their places:',
  );
  vmferry('convert', sample, join(directory, 'guest.mapped-ram'));

  console.log(`\nMore: node ${relative(process.cwd(), cli)} --help, README.md, docs/.`);
}

const directory = mkdtempSync(join(tmpdir(), 'vmferry-tour-'));
try {
  tour(directory);
} catch (error) {
  console.error(`\nThe tour failed: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
