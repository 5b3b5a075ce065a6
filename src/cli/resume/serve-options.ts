/** The options of `vmferry resume --serve`, and how they may be combined. */
import { Option } from 'commander';
import { type MigrationAddress, parseMigrationUri } from '../../io/migration-address.ts';
import { type ReleaseName, releaseNames } from '../../schema/release-rules.ts';
import type { CliCommand } from '../command.ts';
import { UsageError } from '../exit-codes.ts';
import { type LiveOptions, requireHost } from '../live/live-command.ts';
import { scratchOption } from '../scratch.ts';
import { parseBandwidth } from '../size.ts';
import type { RemoteOptions } from './remote.ts';

export interface ServeCommandOptions extends LiveOptions, RemoteOptions {
  serve?: string;
  postcopyPreempt?: boolean;
  record?: string;
  order?: string;
  maxPostcopyBandwidth?: number;
  recover?: boolean;
  tlsCreds?: string;
  tlsHostname?: string;
  tlsAuthz?: string;
  compat?: ReleaseName;
}

/** Where the guest waits, or comes from. */
export interface Target {
  listens: boolean;
  address: MigrationAddress;
}

/** @throws RangeError for a URI that QEMU does not take; UsageError for one that cannot answer, or has one connection only */
export function targetOf(uri: string, { postcopyPreempt, tlsHostname, tlsAuthz }: ServeCommandOptions): Target {
  const listens = uri.startsWith('listen:');
  const address = parseMigrationUri(listens ? uri.slice('listen:'.length) : uri);
  if (address.transport !== 'socket') throw new UsageError('Unable to open return-path for postcopy');
  if (postcopyPreempt === true && address.type === 'fd') {
    throw new UsageError('Migration requires multi-channel URIs (e.g. tcp)');
  }
  if (listens && tlsHostname !== undefined) throw new UsageError('--tls-hostname cannot be used with listen:');
  if (!listens && tlsAuthz !== undefined) throw new UsageError('--tls-authz goes with listen:');
  if (!listens) requireHost(address);
  return { listens, address };
}

/** Options that go with --serve only. */
export const serveOnly = [
  ...['--postcopy-preempt', '--record', '--order', '--max-postcopy-bandwidth', '--recover'],
  ...['--tls-creds', '--compat', '--cache'],
] as const;

export function addServeOptions(command: CliCommand): CliCommand {
  return command
    .option(
      '--serve <URI>',
      'serve the pages of FILE to the QEMU that waits for postcopy at URI: tcp:HOST:PORT, unix:PATH or fd:N; listen:URI waits for its connections',
    )
    .option(
      '--postcopy-preempt',
      'with --serve: send what is asked for through a channel of its own, as the target has it',
    )
    .option('--record <OUT>', 'with --serve: write the order in which the guest asked for pages to OUT, as text')
    .option('--order <FILE>', 'with --serve: push the pages of FILE first, which --record wrote in an earlier run')
    .option(
      '--max-postcopy-bandwidth <RATE>',
      'with --serve: the most to push per second; what is asked for is not held back (default: no limit)',
      parseBandwidth,
    )
    .option(
      '--cache <OUT>',
      'with --serve: keep what is fetched of a FILE on a server in OUT, which in the end is that file',
    )
    .option('--recover', 'with --serve: go on with a guest in postcopy-paused, whose server is gone')
    .option(
      '--tls-creds <ID>',
      'with --serve: the TLS credentials, an --object for the endpoint client, or server with listen:',
    )
    .option('--tls-hostname <NAME>', "the name in the target's certificate (default: the host of URI)")
    .option('--tls-authz <ID>', 'with listen: the --object that says which clients may connect')
    .addOption(
      new Option(
        '--compat <VERSION>',
        'with --serve: the QEMU at the target, if the machine type does not show its version',
      ).choices(releaseNames),
    )
    .addOption(scratchOption('where to keep the RAM of a stream that is compressed or cannot be read twice'));
}

export const serveNotes = [
  '--serve: the guest runs at a QEMU that waits with the capability postcopy-ram before its memory is there. It gets the pages that it asks for, and the rest behind them. Any form of FILE will do. Several servers may serve guests from one FILE at a time.',
  'If the server ends early, the guest waits in postcopy-paused. Let its QEMU listen again (migrate-recover), and run --serve with --recover: that server need not know the first one.',
  'A guest that was paused when FILE was saved is sent as a whole first, because postcopy would start it.',
];

export const serveExamples = [
  'vmferry resume guest.mapped-ram --serve unix:/run/incoming.sock --postcopy-preempt --record guest.order',
  'vmferry resume guest.mapped-ram --serve unix:/run/incoming.sock --order guest.order',
  'vmferry resume guest.mapped-ram --serve unix:/run/again.sock --recover',
];

/** @throws UsageError for a QEMU command, which --map runs */
export function requireNoCommand(command: readonly string[]): void {
  if (command.length > 0) throw new UsageError('a QEMU command goes with --map');
}
