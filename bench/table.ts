/** The tables that `npm run bench` prints. */
import type { Row } from './measure.ts';

/** Splits a row's name, `JOB / PEER`. */
const partsOf = ({ name }: Row) => {
  const [job = '', peer = ''] = name.split(' / ');
  return { job, peer };
};

/** One line per job with a column per peer, if all jobs have the same peers; otherwise one line per row. */
export function printTable(title: string, rows: Row[]): void {
  if (rows.length === 0) return;
  const jobs = [...new Set(rows.map((row) => partsOf(row).job))];
  const peers = [...new Set(rows.map((row) => partsOf(row).peer))];
  const isFitting = peers.every((peer) => peer.length < 24);
  const isWide = isFitting && peers.length > 1 && jobs.length * peers.length === rows.length;
  const lines = isWide
    ? jobs.map((job) => ({ label: job, cells: rows.filter((row) => partsOf(row).job === job) }))
    : rows.map((row) => ({ label: row.name, cells: [row] }));
  const width = Math.max(...lines.map(({ label }) => label.length));
  const columns = (lines[0] as (typeof lines)[0]).cells;
  console.log(`\n${title}\n`);
  if (isWide) console.log(`  ${' '.repeat(width + 8)}${peers.map((peer) => peer.padStart(24)).join('')}`);
  console.log(`  ${' '.repeat(width)}    ours${columns.map(() => '    peer   ratio  spread').join('')}`);
  for (const { label, cells } of lines) {
    const ours = (cells[0] as Row).ours.toPrecision(3).padStart(8);
    const numbers = cells.map(({ peer, ratio, spread }) => {
      const [a, b] = [ratio, spread].map((x) => x.toFixed(2).padStart(8));
      return `${peer.toPrecision(3).padStart(8)}${a}${b}`;
    });
    console.log(`  ${label.padEnd(width)}${ours}${numbers.join('')}`);
  }
}
