/** Has the template of a Postgres version made by a process of its own, and tells where it is. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { TemplateReference } from '../../actors/tenant/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import type { Objects } from '../../runtime/ports/objects.ts';

const TIMEOUT_MS = 300_000;
const MESSAGE_CHARACTERS = 2_000;

export interface MakeTemplateOptions {
  objects: Objects;
  location: ObjectsLocation;
  workDir: string;
  pgVersion: number;
  pgBin?: string;
}

/** The reference of a version's template; made first when there is none. */
export async function templateOf(options: MakeTemplateOptions): Promise<TemplateReference> {
  const known = await read(options);
  if (known) return known;
  const failure = await make(options);
  // Another node may have been quicker: then this attempt failed, and the template is there.
  const made = await read(options);
  if (made) return made;
  throw new PalimpsestError(
    'unavailable',
    `the template of Postgres ${options.pgVersion} could not be made: ${failure}`,
  );
}

async function read({ objects, pgVersion }: MakeTemplateOptions): Promise<TemplateReference | undefined> {
  const key = `templates/pg${pgVersion}/reference.json`;
  if (!(await objects.head(key))) return undefined;
  return JSON.parse(new TextDecoder().decode(await objects.get(key))) as TemplateReference;
}

function make({ location, workDir, pgVersion, pgBin }: MakeTemplateOptions): Promise<string> {
  const argument = { objects: location, workDir, pgVersion, ...(pgBin === undefined ? {} : { pgBin }) };
  const script = fileURLToPath(new URL('template.ts', import.meta.url));
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, JSON.stringify(argument)], {
      stdio: ['pipe', 'ignore', 'pipe'],
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    let message = '';
    child.stderr!.on('data', (chunk: Buffer) => {
      message = (message + chunk).slice(-MESSAGE_CHARACTERS);
    });
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code) => resolve(message || `exit code ${code}`));
  });
}
