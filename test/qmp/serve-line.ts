/** A QMP server of the tests at one end of a line in memory. */
import type { Connection } from '../../src/io/connection.ts';
import type { QmpServer } from '../../src/qmp/server.ts';

/** Serves one line until it ends. */
export async function serve(server: QmpServer, connection: Connection): Promise<void> {
  let writing: Promise<void> = Promise.resolve();
  const session = server.connect((text) => {
    writing = writing.then(() => connection.write(new TextEncoder().encode(text))).catch(() => {});
  });
  const buffer = new Uint8Array(4096);
  try {
    for (let at = 0; ; ) {
      const count = await connection.read(buffer, at);
      if (count === 0) break;
      at += count;
      await session.receive(buffer.subarray(0, count));
      await writing;
    }
  } catch {
    // The client has gone.
  } finally {
    server.disconnect(session);
    connection.destroy();
  }
}
