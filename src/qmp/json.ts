/** The JSON that `vmferry qmp --json` prints. */

/** An event as the server sent it, on one line. */
export interface QmpEventJson {
  event: string;
  /** Absent if the event says nothing more. */
  data?: { [name: string]: unknown };
  timestamp: { seconds: number; microseconds: number };
}
