/**
 * A process that works on what it inherits, bundled and started by inherited.test.ts: `count URI` reads a listener's
 * connection to its end, and answers with the number of bytes if it can; `say URI` connects and writes; `method URI` connects
 * and writes how the line is read.
 */
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import { listenAt } from '../../src/io/node/listen.ts';

const [task, uri] = process.argv.slice(2) as [string, string];

if (task === 'method') {
  const connection = await connectTo(parseMigrationUri(uri));
  await connection.write(Buffer.from(connection.method));
  await connection.close();
} else if (task === 'say') {
  const connection = await connectTo(parseMigrationUri(uri));
  await connection.write(Buffer.from('a stream'));
  await connection.close();
} else {
  const listener = await listenAt(parseMigrationUri(uri));
  const connection = await listener.accept();
  if (connection === undefined) throw new Error('the listener was closed');
  const target = new Uint8Array(10_000);
  let at = 0;
  for (let count = -1; count !== 0; at += count) count = await connection.read(target, at);
  const answer = `${at} bytes`;
  if (connection.canWrite) await connection.write(Buffer.from(answer));
  else process.stderr.write(answer);
  await connection.close();
}
