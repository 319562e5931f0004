/** `palimpsest storage`, `palimpsest layer dump` and `palimpsest scrub` */
import { existsSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { formatLsn } from '../../../protocols/lsn.ts';
import { fileError } from '../../../runtime/adapters/file-errors.ts';
import type { Objects } from '../../../runtime/ports/objects.ts';
import type { PalimpsestClient } from '../../client/index.ts';
import { SystemConnection } from '../../client/system-connection.ts';
import { runningProcess } from '../../node/data-directory.ts';
import { inspectLayer, type LayerSource } from '../../storage/layer-inspection.ts';
import { fileSource, objectSource } from '../../storage/layer-source.ts';
import { layerText } from '../../storage/layer-text.ts';
import { storagePicture } from '../../storage/picture.ts';
import { openPlace, type StoragePlace } from '../../storage/place.ts';
import { repair } from '../../storage/repair.ts';
import { type BranchStorage, readStorage, type StorageReport } from '../../storage/report.ts';
import { storageText } from '../../storage/report-text.ts';
import { scrub } from '../../storage/scrub.ts';
import { problemsOf, scrubText } from '../../storage/scrub-text.ts';
import { type CommonOptions, runCommand, runWithClient, withCommonOptions, withObjects } from '../command.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { type Output, ProgressBar } from '../output.ts';
import { type ObjectsOptions, parseObjects } from '../values.ts';

/** Before a suspicion is looked at again: an upload or a removal that is under way is over by then. */
const RUNNING_PAUSE_MS = 2_000;
const STOPPED_PAUSE_MS = 50;

type PlaceOptions = CommonOptions & ObjectsOptions;

interface StorageOptions extends CommonOptions {
  project?: string;
  layers?: boolean;
  html?: string;
}

interface ScrubOptions extends PlaceOptions {
  deep?: boolean;
  repair?: boolean;
}

export function addLayerCommands(program: Command): void {
  const layer = program.command('layer').description('look into layer files');
  withPlace(
    layer
      .command('dump <layer>')
      .description('show what a layer holds, and check every block of it; a file, or the key of an object'),
  ).action((name: string, options: PlaceOptions) =>
    runCommand(options, (output) => dump(name, options, output)),
  );
}

export function addScrubCommand(program: Command): void {
  withPlace(
    program
      .command('scrub')
      .description('check all objects: missing, damaged or orphaned ones, gaps in history and WAL'),
  )
    .option('--deep', 'read and check every block of data, too')
    .option('--repair', 'mend what can be mended without risk')
    .action((options: ScrubOptions) => runCommand(options, (output) => runScrub(options, output)));
}

export function addStorageCommand(program: Command): void {
  withCommonOptions(
    program
      .command('storage')
      .description('show what each branch takes: logical size, layers, WAL, what it shares, its history'),
  )
    .option('--project <name>', 'only this project (all)')
    .option('--layers', 'list all layers, not only the newest of each branch')
    .option('--html <file>', 'write a picture of all layers: one page, to be opened in a browser')
    .action((options: StorageOptions) =>
      runWithClient(options, (client, output) => showStorage(client, options, output)),
    );
}

function withPlace(command: Command): Command {
  const place = 's3://bucket/prefix or a folder (where the data directory has them)';
  return withObjects(withCommonOptions(command), place);
}

function openPlaceOf(options: PlaceOptions): Promise<StoragePlace> {
  const objects = parseObjects(options);
  return openPlace(objects ? { data: options.data, objects } : { data: options.data });
}

async function showStorage(
  client: PalimpsestClient,
  options: StorageOptions,
  output: Output,
): Promise<number> {
  const { objects, name } = await openPlace({ data: options.data });
  const system = await SystemConnection.open(options.data);
  const bar = new ProgressBar(output, 'reading sizes');
  try {
    const report = await readStorage({
      system,
      objects,
      place: name,
      status: await client.status(),
      ...(options.project === undefined ? {} : { project: options.project }),
      onProgress: (done, all) => bar.show(done, all),
    });
    bar.done();
    if (options.html === undefined) {
      output.result(storageView(report), storageText(report, options.layers === true));
      return EXIT_OK;
    }
    const html = resolve(options.html);
    writePicture(html, storagePicture(report, Date.now()));
    output.result(
      { ...storageView(report), html },
      `${storageText(report, false)}\n\nthe picture is in ${html}`,
    );
    return EXIT_OK;
  } finally {
    await system.close();
  }
}

/** For programs: without the list of relations, which is only for the picture. */
function storageView({ projects, ...report }: StorageReport) {
  const branchView = ({
    relations: _,
    startLsn,
    headLsn,
    layersEndLsn,
    window,
    ...branch
  }: BranchStorage) => ({
    ...branch,
    startLsn: formatLsn(startLsn),
    headLsn: formatLsn(headLsn),
    layersEndLsn: formatLsn(layersEndLsn),
    window: { ...window, fromLsn: formatLsn(window.fromLsn) },
  });
  return {
    ...report,
    projects: projects.map(({ branches, ...project }) => ({
      ...project,
      branches: branches.map(branchView),
    })),
  };
}

function writePicture(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw fileError('write', path, error);
  }
}

async function dump(name: string, options: PlaceOptions, output: Output): Promise<number> {
  const source = existsSync(name)
    ? fileSource(name)
    : await findObject((await openPlaceOf(options)).objects, name);
  const damage: string[] = [];
  const layer = await inspectLayer(source, (error) => damage.push(error.message));
  const { startLsn, endLsn } = layer;
  const lsns = { startLsn: formatLsn(startLsn), endLsn: formatLsn(endLsn) };
  output.result({ name: source.name, ...layer, ...lsns, damage }, layerText(source.name, layer, damage));
  return damage.length === 0 ? EXIT_OK : EXIT_FAILURE;
}

/** An object by its key, or by the last part of it. */
async function findObject(objects: Objects, name: string): Promise<LayerSource> {
  const exact = await objects.head(name);
  if (exact) return objectSource(objects, exact);
  for await (const info of objects.list('')) {
    if (info.key.endsWith(`/${name}`)) return objectSource(objects, info);
  }
  throw new PalimpsestError(
    'not-found',
    `there is neither a file nor an object ${name}`,
    'name a file, the key of an object, or the last part of a key; `palimpsest storage` lists layers',
  );
}

async function runScrub(options: ScrubOptions, output: Output): Promise<number> {
  const place = await openPlaceOf(options);
  const isRunning = (await runningProcess(options.data)) !== undefined;
  const bar = new ProgressBar(output, 'checking layers');
  const deep = options.deep === true;
  const report = await scrub({
    ...place,
    deep,
    pauseMs: isRunning ? RUNNING_PAUSE_MS : STOPPED_PAUSE_MS,
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    onProgress: (done, all) => bar.show(done, all),
  });
  bar.done();
  if (options.repair) await repair(place.objects, report.findings, place.local);
  const problems = problemsOf(report).length;
  output.result({ clean: problems === 0, problems, deep, ...report }, scrubText(report, deep));
  return problems === 0 ? EXIT_OK : EXIT_FAILURE;
}
