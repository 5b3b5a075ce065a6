/** The errors that QMP answers with. */

/** QEMU's classes of errors. Nearly all are generic. */
export type QmpErrorClass = 'GenericError' | 'CommandNotFound' | 'DeviceNotActive' | 'DeviceNotFound' | 'KVMMissingCap';

/** An error that a command answers with. `message` is what QEMU calls `desc`. */
export class QmpError extends Error {
  override readonly name = 'QmpError';

  constructor(
    message: string,
    /** QEMU's class. A newer QEMU may have others. */
    readonly errorClass: QmpErrorClass | (string & {}) = 'GenericError',
  ) {
    super(message);
  }
}
