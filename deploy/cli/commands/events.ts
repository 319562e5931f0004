/** `palimpsest events` */
import type { Command } from 'commander';
import type { EventEnvelope } from '../../client/index.ts';
import { type CommonOptions, parser, runWithClient, withCommonOptions } from '../command.ts';
import type { Output } from '../output.ts';
import { parseSince } from '../values.ts';

interface EventsOptions extends CommonOptions {
  follow?: boolean;
  since?: number;
  durable?: string;
}

const ID_LETTERS = 8;

export function addEventsCommand(program: Command): void {
  withCommonOptions(
    program
      .command('events [pattern]')
      .description('print lifecycle events; a pattern looks like pal.evt.*.*.compute.> or compute.*'),
  )
    .option('--follow', 'go on with new events until Ctrl-C')
    .option(
      '--since <time>',
      'a time, how long ago (10m), or milliseconds since 1970; all events when absent',
      parser((text) => parseSince(text, Date.now())),
    )
    .option(
      '--durable <name>',
      'go on where the last `events` under this name stopped; --since counts the first time',
    )
    .action((pattern: string | undefined, options: EventsOptions) =>
      runWithClient(options, async (client, output) => {
        const subject = subjectPattern(pattern);
        if (options.follow || options.durable !== undefined) {
          const stop = new AbortController();
          for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
          // With nothing said, following begins now; with --since, at that point.
          const from = options.since ?? (options.follow ? ('now' as const) : 0);
          const durable = options.durable === undefined ? {} : { durable: options.durable };
          const how = { from, ...durable, follow: options.follow === true, signal: stop.signal };
          await client.subscribe(subject, how, (event) => print(output, event));
        } else {
          const since = options.since === undefined ? {} : { from: options.since };
          for await (const event of client.events(subject, since)) print(output, event);
        }
        return 0;
      }),
    );
}

/** A whole subject, or the short form `<kind>.<event>`. */
export function subjectPattern(pattern: string | undefined): string {
  if (pattern === undefined) return 'pal.evt.>';
  return pattern.startsWith('pal.') ? pattern : `pal.evt.*.*.${pattern}`;
}

function print(output: Output, event: EventEnvelope): void {
  output.result(event, eventLine(event));
}

function eventLine(event: EventEnvelope): string {
  const time = new Date(event.time).toISOString().replace('T', ' ').slice(0, 23);
  const timeline =
    event.timeline === '' || event.timeline === '_' ? '-' : event.timeline.slice(0, ID_LETTERS);
  const data = Object.entries(event.data)
    .map(([name, value]) => `${name}=${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join(' ');
  return `${time}  ${timeline.padEnd(ID_LETTERS)}  ${event.type.padEnd(28)} ${data}`.trimEnd();
}
