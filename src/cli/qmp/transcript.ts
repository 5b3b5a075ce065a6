/**
 * Reads what a client sent out of a transcript:
 *
 *     {"execute": "query-status"}                 a request, on one line or several
 *     -> {"execute": "stop"}     --> …            the same, marked as sent; `+>` goes on in the next line
 *     <- {"return": {}}          {"event": …}     answers and events, which are left out
 *     migrate uri=tcp:host:4444                   a command as `vmferry qmp` takes it
 *     # a comment
 */

import type { RecordedRequest } from '../../qmp/compatibility.ts';
import { JsonReader } from '../../qmp/json-reader.ts';
import { isObject, type JsonValue, printExactJson } from '../../qmp/json-value.ts';
import { ServerSchema } from '../../qmp/server-schema.ts';
import { introspect } from '../../schema/qapi/introspection.ts';
import { schemaOf } from '../../schema/qapi/schema.ts';
import { readRequest, wordsOf } from './request.ts';

/** The requests of a transcript, in order. @throws UsageError for a line in words that is not a command */
export function readTranscript(text: string): RecordedRequest[] {
  const lines = text.split(/\r?\n/);
  const requests: RecordedRequest[] = [];
  let isFirst = true;
  const add = (line: number, sent: string) => {
    requests.push({ line, text: sent, isFirst });
    isFirst = false;
  };
  for (let at = 0; at < lines.length; at++) {
    const line = (lines[at] as string).trim();
    const [, mark, sent = line] = /^(-{1,2}>|\+>)\s*(.*)$/.exec(line) ?? [];
    if (mark === undefined && (line === '' || isComment(line))) continue;
    if (mark === undefined && !line.startsWith('{')) {
      add(at + 1, requestOfWords(line));
      continue;
    }
    const first = at;
    let whole = sent;
    while (isUnfinished(whole) && at + 1 < lines.length && goesOn(lines[at + 1] as string, lines[at] as string)) {
      at++;
      whole += `\n${(lines[at] as string).replace(/^\s*([-+]>)/, '')}`;
    }
    const kind = mark === undefined ? kindOf(whole) : 'request';
    if (kind === 'greeting') isFirst = true;
    if (kind === 'request') add(first + 1, whole);
  }
  return requests;
}

const isComment = (line: string) => /^(#|(\d+\.\d+ )?<-{1,2}|events:|-- |```)/.test(line);

/** A request ends where another one, an answer or a comment begins. */
const goesOn = (next: string, last: string) =>
  last.trim().startsWith('+>') || !/^\s*([-+]>|-->|#|(\d+\.\d+ )?<-)/.test(next);

function isUnfinished(text: string): boolean {
  const reader = new JsonReader(() => {});
  reader.push(new TextEncoder().encode(`${text}\n`));
  return reader.isInside;
}

function kindOf(text: string): 'request' | 'answer' | 'greeting' {
  const values: JsonValue[] = [];
  const reader = new JsonReader((message) => {
    if ('value' in message) values.push(message.value);
  });
  reader.push(new TextEncoder().encode(`${text}\n`));
  const [value] = values;
  if (!isObject(value)) return 'request';
  if ('QMP' in value) return 'greeting';
  return ['return', 'error', 'event'].some((name) => name in value) ? 'answer' : 'request';
}

function requestOfWords(line: string): string {
  const newest = schemaOf('10.0');
  const schema = new ServerSchema(introspect(newest, newest.commands.keys(), newest.events.keys()));
  const { command, given } = readRequest(wordsOf(line), schema);
  return printExactJson({ execute: command, arguments: given });
}
