/** The JSON that `vmferry qmp --json` prints. */
import type { VersionedJson } from '../vm/json-version.ts';

/** An event as the server sent it, on one line. */
export interface QmpEventJson {
  event: string;
  /** Absent if the event says nothing more. */
  data?: { [name: string]: unknown };
  timestamp: { seconds: number; microseconds: number };
}

/** What `vmferry qmp --replay` found. */
export interface QmpReplayJson extends VersionedJson {
  /** The releases that were asked, oldest first. */
  releases: string[];
  /** How many requests the transcript has. */
  requests: number;
  /** Requests that a release refuses. */
  refused: {
    /** Where the request begins in the transcript, from 1. */
    line: number;
    /** Absent if the request names none. */
    command?: string;
    /** What each release answers that refuses it. */
    by: { release: string; class: string; desc: string }[];
  }[];
  /** Requests that are not judged: their command is in none of the schemas. */
  unknown: { line: number; command?: string }[];
}
