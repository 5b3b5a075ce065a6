/** Standard input and output as one line, for a monitor. */
import type { Connection, Listener } from '../../io/connection.ts';
import { connectionOnStdio } from '../../io/node/descriptor.ts';

/** A listener with one client. `onEnd` is called when it has gone. */
export function stdioListener(onEnd: () => void): Listener {
  let line: Connection | undefined = stdioLine(onEnd);
  return {
    uri: 'stdio',
    async accept() {
      const taken = line;
      line = undefined;
      return taken ?? new Promise(() => {});
    },
    async close() {},
  };
}

function stdioLine(onEnd: () => void): Connection {
  const [input, output] = [connectionOnStdio('read'), connectionOnStdio('write')];
  return {
    ...{ name: 'stdio', size: undefined, canRead: true, canWrite: true, method: input.method },
    read: (target, position) => input.read(target, position),
    write: (bytes) => output.write(bytes),
    end: () => output.end(),
    destroy() {
      input.destroy();
      output.destroy();
      onEnd();
    },
    async close() {
      await output.close();
      input.destroy();
    },
  };
}
