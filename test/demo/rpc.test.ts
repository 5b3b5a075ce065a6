import { expect, it } from 'vitest';
import { openWanted } from '../../src/demo/page/open-wanted.ts';
import { type OpenedFile, type Progress, ViewerError } from '../../src/demo/protocol.ts';
import { connect, type Handlers, type Port, serve } from '../../src/demo/rpc.ts';
import { describeFailure } from '../../src/demo/worker/failures.ts';
import { MigrationError } from '../../src/index.ts';

/** A viewer whose worker is `handlers`, with real messages. */
function viewerOf(handlers: Partial<Handlers>) {
  const { port1, port2 } = new MessageChannel();
  for (const port of [port1, port2]) port.start();
  serve(port1 as unknown as Port, handlers as Handlers, describeFailure);
  const end = () => port1.close();
  return { viewer: connect(port2 as unknown as Port), end };
}

it('passes partial results and progress to their call, then the result', async () => {
  const { viewer, end } = viewerOf({
    search: async ({ pattern }, { part, progress }) => {
      progress({ doing: 'searching', done: 1, total: 2 });
      part([pattern]);
      await Promise.resolve();
      part([`${pattern}!`]);
      return { matches: 2, limited: false };
    },
  });
  const found = async (pattern: string) => {
    const parts: unknown[] = [];
    const told: Progress[] = [];
    const options = { onPart: (part: unknown) => parts.push(part), onProgress: (each: Progress) => told.push(each) };
    return { result: await viewer.search({ file: 1, kind: 'text', pattern }, options), parts, told };
  };
  const [one, two] = await Promise.all([found('one'), found('two')]);
  expect(one.parts).toEqual([['one'], ['one!']]);
  expect(two.parts).toEqual([['two'], ['two!']]);
  expect(two).toMatchObject({ result: { matches: 2 }, told: [{ done: 1, total: 2 }] });
  end();
});

it('reports a bad file with its code and place, in the words of the command line', async () => {
  const place = { source: 'guest.bin', offset: 500, coordinate: 'file' } as const;
  const error = new MigrationError('truncated', 'expected more', place);
  const { viewer, end } = viewerOf({ verify: () => Promise.reject(error) });
  const caught = await viewer.verify({ file: 1 }).catch((each) => each);
  expect(caught).toBeInstanceOf(ViewerError);
  expect(caught.failure).toEqual({
    kind: 'bad-input',
    code: 'truncated',
    place,
    detail: 'expected more',
    message: 'expected more [truncated] in guest.bin at 0x1f4 (500)',
  });
  end();
});

it('ends a cancelled call in the worker', async () => {
  let ended = false;
  const { viewer, end } = viewerOf({
    close: (_, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          ended = true;
          reject(signal.reason);
        });
      }),
  });
  const controller = new AbortController();
  const closing = viewer.close(1, { signal: controller.signal }).catch((each) => each);
  controller.abort();
  expect((await closing).failure.kind).toBe('cancelled');
  expect(ended).toBe(true);
  expect((await viewer.close(1, { signal: controller.signal }).catch((each) => each)).failure.kind).toBe('cancelled');
  end();
});

it('closes a file that is opened after its call was cancelled', async () => {
  const closed: number[] = [];
  const { viewer, end } = viewerOf({
    // It is done before it receives the cancellation.
    open: async () => ({ id: 7 }) as OpenedFile,
    close: async (id) => void closed.push(id),
  });
  const controller = new AbortController();
  const opening = openWanted(viewer, { files: [] }, { signal: controller.signal });
  controller.abort();
  await expect(opening).rejects.toMatchObject({ failure: { kind: 'cancelled' } });
  await expect.poll(() => closed).toEqual([7]);
  end();
});

it('fails every call, earlier and later, if the worker does not start', async () => {
  const port = new EventTarget() as EventTarget & Port;
  port.postMessage = () => {};
  const viewer = connect(port);
  const before = viewer.about();
  port.dispatchEvent(Object.assign(new Event('error'), { message: 'no modules' }));
  for (const call of [before, viewer.close(1)]) {
    await expect(call).rejects.toMatchObject({
      failure: { kind: 'unsupported', message: expect.stringContaining('could not be started: no modules') },
    });
  }
});
