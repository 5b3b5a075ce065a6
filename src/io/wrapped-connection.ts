/** A connection around another one, to which it passes everything on. Subclasses change what they are about. */
import type { Connection, Descriptors } from './connection.ts';

export abstract class WrappedConnection implements Connection {
  readonly size = undefined;
  /** The connection inside. */
  protected readonly line: Connection;

  constructor(line: Connection) {
    this.line = line;
  }

  get name(): string {
    return this.line.name;
  }

  get canRead(): boolean {
    return this.line.canRead;
  }

  get canWrite(): boolean {
    return this.line.canWrite;
  }

  get method(): string {
    return this.line.method;
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return this.line.read(target, position);
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.line.write(bytes);
  }

  end(): Promise<void> {
    return this.line.end();
  }

  destroy(): void {
    this.line.destroy();
  }

  close(): Promise<void> {
    return this.line.close();
  }

  takeDescriptors(): Descriptors | undefined {
    return this.line.takeDescriptors?.();
  }
}
