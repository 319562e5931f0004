/** `palimpsest wal verify | dump` */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { formatLsn, parseLsn, segmentNumber } from '../../../protocols/lsn.ts';
import type { DecodedRecord } from '../../../protocols/postgres/wal/record.ts';
import { WalStreamDecoder } from '../../../protocols/postgres/wal/stream-decoder.ts';
import { hexView } from '../../wal/hex-view.ts';
import { readLiveWal } from '../../wal/live-wal.ts';
import { type RecordView, recordLine, recordView } from '../../wal/record-view.ts';
import { type Finding, type ReplayResult, replayAndCompare, total } from '../../wal/replay.ts';
import { WalFolder } from '../../wal/wal-folder.ts';
import { type CommonOptions, parser, runCommand, withProject } from '../command.ts';
import { EXIT_FAILURE, EXIT_OK, EXIT_USAGE } from '../exit-codes.ts';
import { type Output, ProgressBar, table } from '../output.ts';

const DUMP_LIMIT = 1_000_000;

interface VerifyOptions {
  base: string;
  wal: string;
  json?: boolean;
}

interface DumpOptions extends CommonOptions {
  project: string;
  from?: number;
  to?: number;
  limit: number;
  record?: string;
}

export function addWalCommands(program: Command): void {
  const wal = program.command('wal').description("check and show Postgres' write-ahead log");

  wal
    .command('verify')
    .description('replay WAL over a base directory and compare each page with the images in the WAL')
    .requiredOption(
      '--base <dir>',
      'data directory as it was before the WAL, copied while Postgres was stopped',
    )
    .requiredOption('--wal <dir>', 'pg_wal folder or archive, written with wal_consistency_checking=all')
    .option('--json', 'print JSON instead of text')
    .action((options: VerifyOptions) =>
      runCommand({ ...options, data: '' }, async (output) => verify(options, output)),
    );

  withProject(
    wal
      .command('dump <source>')
      .description(
        'print the records of a segment file, of a folder of segments, or of a branch (its newest)',
      ),
  )
    .option('--from <lsn>', 'first record', parser(parsePlace))
    .option('--to <lsn>', 'stop before this LSN', parser(parsePlace))
    .option('--limit <count>', 'at most this many records', parser(parseCount), DUMP_LIMIT)
    .option('--record <name>', 'only records whose name begins like this: Heap2, Btree/SPLIT_L')
    .action((source: string, options: DumpOptions) =>
      runCommand(options, (output) => dump(source, options, output)),
    );
}

function verify(options: VerifyOptions, output: Output): number {
  const bar = new ProgressBar(output, 'replaying');
  let result: ReplayResult;
  try {
    result = replayAndCompare(options.base, options.wal, {
      onProgress: (done, all) => bar.show(done, all),
    });
  } finally {
    bar.done();
  }
  const sum = total(result.tallies);
  const wrong = sum.different + sum.failed + sum.unsupported;
  const records = [...result.tallies].sort(([a], [b]) => (a < b ? -1 : 1));
  output.result(
    {
      from: formatLsn(result.startLsn),
      to: formatLsn(result.endLsn),
      endsWhole: result.endsWhole,
      wrong,
      total: sum,
      records: Object.fromEntries(records),
      findings: result.firsts.map(findingJson),
    },
    [
      table(
        ['RECORD', 'RECORDS', 'EQUAL', 'DIFFERENT', 'IMAGES APPLIED', 'UNSUPPORTED', 'FAILED'],
        records.map(([name, t]) => [
          name,
          ...[t.records, t.equal, t.different, t.applied, t.unsupported, t.failed].map(String),
        ]),
        'no records',
      ),
      '',
      ...result.firsts.flatMap((finding) => [findingText(finding), '']),
      summary(result, wrong),
    ].join('\n'),
  );
  if (wrong > 0) return EXIT_FAILURE;
  if (sum.equal > 0) return EXIT_OK;
  throw new PalimpsestError(
    'invalid-argument',
    'nothing could be compared: the WAL holds no images for comparison',
    'let Postgres write it with wal_consistency_checking=all and full_page_writes=off',
  );
}

function summary(result: ReplayResult, wrong: number): string {
  const sum = total(result.tallies);
  const range = `${formatLsn(result.startLsn)} to ${formatLsn(result.endLsn)}`;
  const end = result.endsWhole ? '' : '; the last record is not complete, as after a crash';
  return (
    `${sum.records} records from ${range}${end}\n` +
    `${sum.equal} page images equal, ${sum.different} different, ${sum.unsupported} unsupported, ${sum.failed} failed` +
    (wrong === 0 ? '' : `: ${wrong} are wrong; shown is the first of each record type`)
  );
}

function findingText(finding: Finding): string {
  const { record, lsn, page, message, ours, theirs } = finding;
  const head = `${record} at ${lsn}${page ? `, ${page}` : ''}: ${message}`;
  return ours && theirs ? `${head}\n${hexView(ours, theirs)}` : head;
}

function findingJson({ ours, theirs, ...rest }: Finding): Record<string, unknown> {
  if (!ours || !theirs) return rest;
  return {
    ...rest,
    ours: Buffer.from(ours).toString('base64'),
    theirs: Buffer.from(theirs).toString('base64'),
  };
}

async function dump(source: string, options: DumpOptions, output: Output): Promise<number> {
  if (options.from !== undefined && options.to !== undefined && options.from > options.to) {
    output.error(new PalimpsestError('invalid-argument', '--from is after --to'));
    return EXIT_USAGE;
  }
  const printer = new RecordPrinter(options, output);
  const isFile = existsSync(source);
  // A name like a path can only be one: the error then is about the file.
  if (isFile || source.includes('/')) dumpFolder(new WalFolder(source), options, printer);
  else {
    await readLiveWal({
      dataDir: options.data,
      project: options.project,
      branch: source,
      ...(options.from === undefined ? {} : { fromLsn: options.from }),
      ...(options.to === undefined ? {} : { toLsn: options.to }),
      onRecord: (record) => printer.print(record),
    });
  }
  printer.flush();
  return EXIT_OK;
}

function dumpFolder(folder: WalFolder, options: DumpOptions, printer: RecordPrinter): void {
  const { from, to } = options;
  const number = from === undefined ? folder.firstSegment : segmentNumber(from);
  if (!folder.has(number)) {
    throw new PalimpsestError('invalid-argument', `LSN ${formatLsn(from!)} is not in ${folder.path}`);
  }
  const start = folder.firstRecordIn(number);
  const decoder = new WalStreamDecoder(start, { pgVersion: folder.pgVersionOf(number) });
  folder.readRecords(
    decoder,
    (record) => record.lsn < (from ?? 0) || printer.print(record),
    to === undefined ? {} : { toLsn: to },
  );
}

/** Prints what was asked for, in pieces: a line of its own for each would be slow. */
class RecordPrinter {
  readonly #options: DumpOptions;
  readonly #output: Output;
  #lines: string[] = [];
  #count = 0;

  constructor(options: DumpOptions, output: Output) {
    this.#options = options;
    this.#output = output;
  }

  /** False when no more are wanted. */
  print(record: DecodedRecord): boolean {
    if (this.#count >= this.#options.limit) return false;
    const view: RecordView = recordView(record);
    const { record: wanted } = this.#options;
    if (wanted !== undefined && !view.record.toLowerCase().startsWith(wanted.toLowerCase())) return true;
    this.#lines.push(this.#output.json ? JSON.stringify(view) : recordLine(view));
    if (this.#lines.length >= 500) this.flush();
    return ++this.#count < this.#options.limit;
  }

  flush(): void {
    if (this.#lines.length > 0) process.stdout.write(`${this.#lines.join('\n')}\n`);
    this.#lines = [];
  }
}

function parsePlace(text: string): number {
  const lsn = parseLsn(text);
  if (lsn !== undefined) return lsn;
  throw new PalimpsestError('invalid-argument', `"${text}" is not an LSN`, 'write it like 0/1A2B3C4');
}

function parseCount(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new PalimpsestError('invalid-argument', `"${text}" is not a number of records`, 'write it like 100');
}
