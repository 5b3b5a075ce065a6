/**
 * Times several ways to do one job. Each way runs once per round, in rotating order, so that whatever slows the machine
 * down slows all of them. Ratios are taken within a round; medians and quartiles over the rounds.
 */
export interface Way {
  name: string;
  /** Does the job `times` times and returns the nanoseconds it took. */
  run(times: number): number;
}

export interface Row {
  name: string;
  /** Median speed of ours and of the peer. */
  ours: number;
  peer: number;
  /** Median over the rounds of our speed relative to the peer's: above 1, ours is faster. */
  ratio: number;
  /** Third minus first quartile of the ratio. */
  spread: number;
  unit: string;
}

const ROUND_NS = 2_000_000;
const WARM_NS = 60_000_000;

export function timed(job: () => void): Way['run'] {
  return (times) => {
    const start = process.hrtime.bigint();
    for (let i = 0; i < times; i++) job();
    return Number(process.hrtime.bigint() - start);
  };
}

/** Compares ours with every peer on a job over `bytes` bytes; one row per peer. */
export function compareWays(name: string, bytes: number, ours: Way, peers: Way[], rounds: number): Row[] {
  const ways = [ours, ...peers];
  const times = ways.map((way) => {
    // Long enough for the engine to finish optimizing.
    for (let warm = 0; warm < WARM_NS; ) warm += way.run(1) + 1;
    let n = 1;
    let taken = way.run(n);
    while (taken < ROUND_NS / 4) {
      n *= 2;
      taken = way.run(n);
    }
    return Math.max(1, Math.round((n * ROUND_NS) / taken));
  });
  const speeds: number[][] = ways.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < ways.length; i++) {
      const way = (i + round) % ways.length;
      speeds[way]!.push((bytes * times[way]!) / ways[way]!.run(times[way]!));
    }
  }
  return peers.map((peer, i) => rowOf(`${name} / ${peer.name}`, speeds[0]!, speeds[i + 1]!));
}

/** The row for two lists of speeds, in GB/s, from the same rounds. */
export function rowOf(name: string, ours: number[], peer: number[]): Row {
  const ratios = ours.map((speed, round) => speed / peer[round]!);
  return {
    name,
    ours: quantile(ours, 0.5),
    peer: quantile(peer, 0.5),
    ratio: quantile(ratios, 0.5),
    spread: quantile(ratios, 0.75) - quantile(ratios, 0.25),
    unit: 'GB/s',
  };
}

/** The worst and the geometric mean of the ratios of some rows. */
export function summarize(name: string, rows: Row[]): Row[] {
  const worst = rows.reduce((least, row) => (row.ratio < least.ratio ? row : least));
  const mean = (of: (row: Row) => number) =>
    Math.exp(rows.reduce((sum, row) => sum + Math.log(of(row)), 0) / rows.length);
  return [
    { ...worst, name: `${name}, worst (${worst.name.split(' / ')[0]?.split(', ').slice(1).join(', ')})` },
    {
      name: `${name}, geometric mean of ${rows.length}`,
      ours: mean((row) => row.ours),
      peer: mean((row) => row.peer),
      ratio: mean((row) => row.ratio),
      spread: mean((row) => Math.max(row.spread, 1e-9)),
      unit: 'GB/s',
    },
  ];
}

function quantile(values: number[], at: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * at;
  const low = Math.floor(place);
  return sorted[low]! + ((sorted[low + 1] ?? sorted[low]!) - sorted[low]!) * (place - low);
}
