/**
 * Jobs as a monitor sees them. QEMU runs those of snapshots one after another, and does not dismiss them by itself:
 *
 *     created ─→ running ─┬─→ waiting ─→ pending ─→ concluded ─→ null       job-dismiss
 *                         └─→ aborting ───────────→ concluded ─→ null       it failed, and has an error
 */
import { QmpError } from '../qmp-error.ts';
import type { Handler } from '../server.ts';

type JobStatus = 'created' | 'running' | 'waiting' | 'pending' | 'aborting' | 'concluded' | 'null';
type JobVerb = 'cancel' | 'pause' | 'complete' | 'finalize' | 'dismiss';

interface Job {
  readonly id: string;
  /** Such as `snapshot-save`. */
  readonly type: string;
  readonly ending: AbortController;
  status: JobStatus;
  isPaused: boolean;
  error: string | undefined;
}

/** What a job does. It ends early if the signal is aborted. An error's message becomes the job's error. */
export type JobWork = (signal: AbortSignal) => Promise<void>;

/** In which states a job accepts a verb. */
const accepts: Record<JobVerb, readonly JobStatus[]> = {
  cancel: ['created', 'running', 'waiting', 'pending'],
  pause: ['created', 'running'],
  complete: [],
  finalize: ['pending'],
  dismiss: ['concluded'],
};

/** Jobs, and the commands that look after them. */
export class Jobs {
  readonly #emit: (event: string, data: object) => void;
  /** Newest first. */
  readonly #jobs: Job[] = [];
  /** The end of the latest job. */
  #latest: Promise<void> = Promise.resolve();

  constructor(emit: (event: string, data: object) => void) {
    this.#emit = emit;
  }

  /** Begins a job after those that run. @throws QmpError for an id that is malformed or taken */
  start(type: string, id: string, work: JobWork): void {
    if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(id)) throw new QmpError(`Invalid job ID '${id}'`);
    if (this.#jobs.some((job) => job.id === id)) throw new QmpError(`Job ID '${id}' already in use`);
    const job: Job = {
      ...{ id, type, ending: new AbortController(), status: 'created', isPaused: false, error: undefined },
    };
    this.#jobs.unshift(job);
    this.#enter(job, 'created');
    this.#enter(job, 'running');
    this.#latest = this.#latest.then(() => this.#run(job, work));
  }

  /** Resolves when no job runs any more. */
  async idle(): Promise<void> {
    for (let latest: unknown; latest !== this.#latest; ) {
      latest = this.#latest;
      await latest;
    }
  }

  /** Dismisses all jobs that have ended, as QEMU does when it quits. */
  dismissAll(): void {
    for (const job of [...this.#jobs]) if (job.status === 'concluded') this.#dismiss(job);
  }

  /** query-jobs and job-*. */
  readonly handlers: Readonly<Record<string, Handler>> = {
    'query-jobs': () =>
      this.#jobs.map(({ id, type, status, error }) => {
        const current = status === 'concluded' || status === 'aborting' ? 1 : 0;
        return {
          ...{ 'current-progress': current, status, 'total-progress': 1, type, id },
          ...(error === undefined ? {} : { error }),
        };
      }),
    'job-dismiss': ({ id }) => this.#dismiss(this.#accepting(id, 'dismiss')),
    'job-cancel': ({ id }) => this.#accepting(id, 'cancel').ending.abort(new Error('Operation canceled')),
    'job-complete': ({ id }) => void this.#accepting(id, 'complete'),
    'job-finalize': ({ id }) => void this.#accepting(id, 'finalize'),
    'job-pause': ({ id }) => {
      const job = this.#accepting(id, 'pause');
      if (job.isPaused) throw new QmpError('Job is already paused');
      // A snapshot is made without a point at which it could pause.
      job.isPaused = true;
    },
    'job-resume': ({ id }) => {
      const job = this.#find(id);
      if (!job.isPaused) throw new QmpError("Can't resume a job that was not paused");
      job.isPaused = false;
    },
  };

  async #run(job: Job, work: JobWork): Promise<void> {
    try {
      job.ending.signal.throwIfAborted();
      await work(job.ending.signal);
      this.#enter(job, 'waiting');
      this.#enter(job, 'pending');
    } catch (error) {
      job.error = (error as Error).message;
      this.#enter(job, 'aborting');
    }
    this.#enter(job, 'concluded');
  }

  #enter(job: Job, status: JobStatus): void {
    job.status = status;
    this.#emit('JOB_STATUS_CHANGE', { status, id: job.id });
  }

  #dismiss(job: Job): void {
    this.#jobs.splice(this.#jobs.indexOf(job), 1);
    this.#enter(job, 'null');
  }

  #find(id: unknown): Job {
    const job = this.#jobs.find((each) => each.id === id);
    if (job === undefined) throw new QmpError('Job not found');
    return job;
  }

  #accepting(id: unknown, verb: JobVerb): Job {
    const job = this.#find(id);
    if (accepts[verb].includes(job.status)) return job;
    throw new QmpError(`Job '${job.id}' in state '${job.status}' cannot accept command verb '${verb}'`);
  }
}
