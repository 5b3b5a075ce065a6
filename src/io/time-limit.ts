/** Waits with a time limit. */

/** Resolves when `work` does, or after `ms` milliseconds, whichever comes first. The work itself goes on. */
export async function settledWithin(work: Promise<void>, ms: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The same, if it does not matter whether the work succeeds. */
export function endedWithin(work: Promise<void>, ms: number): Promise<void> {
  const ended = work.catch(() => {});
  return settledWithin(ended, ms);
}
