/**
 * Holds what the architecture promises: the direction of imports, no time, randomness or I/O outside the adapters,
 * and the shape of files and folders. A rule that must be broken is changed here, with its reason, or not at all.
 */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  blankLiterals,
  entries,
  ROOT,
  readSources,
  type SourceFile,
  TOP_FOLDERS,
} from './support/source-files.ts';
import { machineOf, statechartOf, statechartSection } from './support/statechart.ts';

const LINES_MAX = 500;
/** Longer files, each with the reason. */
const LONG_FILES: Record<string, string> = {};

const sources = readSources();
const isTest = (file: { path: string }) => file.path.startsWith('test/') || /\.test\.ts$/.test(file.path);
const production = sources.filter((file) => !isTest(file));

/** What a file may import, by the folder it stands in; the first match counts. */
const LAYERS: { from: RegExp; may: RegExp }[] = [
  { from: /^protocols\//, may: /^protocols\// },
  { from: /^runtime\/ports\//, may: /^(protocols|runtime\/ports)\// },
  { from: /^runtime\/host\/definition\.ts$/, may: /^(protocols|runtime\/ports)\// },
  { from: /^actors\//, may: /^(protocols\/|actors\/|runtime\/ports\/|runtime\/host\/definition\.ts$)/ },
  { from: /^runtime\//, may: /^(protocols|actors|runtime)\// },
  // The simulated world runs the very nodes and control actors that deploy starts; those files are held to be free of I/O below.
  {
    from: /^simulations\//,
    may: /^((protocols|actors|runtime|simulations)\/|deploy\/node\/(\w+-node|computes|control-actors|garbage-collector|replica-repair)\.ts$|deploy\/cluster\/(compute-node|project-places|registry|remote-computes|storage-placement)\.ts$)/,
  },
  // The command line starts simulations, as it starts everything.
  { from: /^deploy\/cli\/sim\//, may: /^(protocols|runtime|deploy|simulations)\// },
  { from: /^deploy\//, may: /^(protocols|actors|runtime|deploy)\// },
];

/** Where real time, randomness and I/O are allowed. */
const REAL_WORLD =
  /^(runtime\/adapters|deploy(?!\/node\/(\w+-node|computes|control-actors|garbage-collector|attachments|branch-lookup|branch-points|in-parallel|outcomes|wait-for-state|replica-repair|shard-(objects|parents|places))\.ts$|\/cluster\/(compute-node|project-places|registry|remote-computes|storage-placement)\.ts$))\//;
/** Modules of Node that compute and touch nothing. */
const PURE_MODULES = new Set([
  'node:assert',
  'node:buffer',
  'node:events',
  'node:path',
  'node:util',
  'node:zlib',
]);
const WORLD_NAMES =
  /(?<![.\w#])(Date\.now|new Date\(\)|Math\.random|performance\.now|process\.(?:argv|binding|cpuUsage|cwd|env|execPath|exit|exitCode|getuid|hrtime|memoryUsage|nextTick|pid|platform|stderr|stdin|stdout|uptime|versions?)|setTimeout|setInterval|setImmediate|crypto\.\w+|fetch)\b\s*\(?/;
/** Packages that only the outside may use. */
const OUTSIDE_PACKAGES = new Set([
  'pino',
  'pino-pretty',
  'commander',
  'nats',
  '@nats-io/jwt',
  '@peculiar/x509',
  'reflect-metadata',
]);

describe('the scanner of this test', () => {
  it('sees code, and not what stands in comments and literals', () => {
    const code = blankLiterals(
      "a(); // Date.now()\nconst b = 'fetch(x)'; /* setTimeout */ c(`d /*`); e = /'\\/\\//; f();",
    );
    expect(code.replace(/\s+/g, ' ')).toBe('a(); const b = ; c( ); e = ; f();');
    expect(WORLD_NAMES.test('pool.fetch(1)')).toBe(false);
    expect(WORLD_NAMES.test('x = Date.now()')).toBe(true);
    expect(WORLD_NAMES.test('await fetch(url)')).toBe(true);
  });
});

/** Collects complaints with file and line, so that one run shows them all. */
function complaints(files: SourceFile[], find: (file: SourceFile) => string[]): string[] {
  return files.flatMap((file) => find(file).map((text) => `${file.path}: ${text}`));
}

function lineOf(file: SourceFile, pattern: RegExp): number {
  const index = file.code.search(pattern);
  return file.code.slice(0, index).split('\n').length;
}

describe('dependencies', () => {
  it('point one way: protocols, ports, actors, runtime, deploy', () => {
    const found = complaints(production, (file) => {
      const layer = LAYERS.find(({ from }) => from.test(file.path));
      return file.imports
        .filter((item) => item.file !== undefined && !layer?.may.test(item.file))
        .map((item) => `must not import ${item.file}`);
    });
    expect(found).toEqual([]);
  });

  it('name files that exist, with their extension', () => {
    const found = complaints(sources, (file) =>
      file.imports
        .filter((item) => item.file !== undefined && !existsSync(ROOT + item.file))
        .map((item) => `imports ${item.specifier}, which is not a file`),
    );
    expect(found).toEqual([]);
  });

  it('are declared in package.json', () => {
    const manifest = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8'));
    const runtime = new Set(Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies }));
    const development = new Set(Object.keys(manifest.devDependencies));
    const found = complaints(sources, (file) =>
      file.imports
        .map((item) => item.packageName)
        .filter(
          (name) => name !== undefined && !runtime.has(name) && !(isTest(file) && development.has(name)),
        )
        .map((name) => `imports ${name}, which package.json does not declare for it`),
    );
    expect(found).toEqual([]);
  });
});

describe('time, randomness and I/O', () => {
  const inner = production.filter((file) => !REAL_WORLD.test(file.path));

  it('are reached only through ports outside adapters and deploy', () => {
    const found = complaints(inner, (file) => {
      const match = WORLD_NAMES.exec(file.code);
      return match ? [`line ${lineOf(file, WORLD_NAMES)} uses ${match[1]}`] : [];
    });
    expect(found).toEqual([]);
  });

  it('have their modules imported only by adapters and deploy', () => {
    const found = complaints(inner, (file) =>
      file.imports
        .filter(({ specifier, packageName }) =>
          specifier.startsWith('node:')
            ? !PURE_MODULES.has(specifier)
            : packageName !== undefined && OUTSIDE_PACKAGES.has(packageName),
        )
        .map(({ specifier }) => `must not import ${specifier}`),
    );
    expect(found).toEqual([]);
  });
});

describe('files', () => {
  it('open with a comment that says what they are (tests say it by their names)', () => {
    const found = sources
      .filter(({ path }) => !path.endsWith('.test.ts'))
      .filter(({ text }) => !/^(#![^\n]*\n)?\s*(\/\*|\/\/)/.test(text))
      .map(({ path }) => path);
    expect(found).toEqual([]);
  });

  it(`have at most ${LINES_MAX} lines`, () => {
    const found = complaints(sources, (file) => {
      const lines = file.text.split('\n').length - 1;
      return lines > LINES_MAX && !LONG_FILES[file.path] ? [`${lines} lines`] : [];
    });
    expect(found).toEqual([]);
  });

  it('have no default exports, enums or namespaces', () => {
    const banned =
      /\bexport\s+default\b|^\s*(?:export\s+)?(?:declare\s+)?(?:const\s+)?(?:enum|namespace)\s+\w+/m;
    const found = complaints(sources, (file) =>
      banned.test(file.code) ? [`line ${lineOf(file, banned)}: ${banned.exec(file.code)![0].trim()}`] : [],
    );
    expect(found).toEqual([]);
  });

  it('are not named as a drawer for everything', () => {
    const found = sources.filter(({ path }) => /\/(utils?|helpers?|common|misc|shared)\.[tj]s$/.test(path));
    expect(found.map(({ path }) => path)).toEqual([]);
  });

  it('are finished', () => {
    const marks = new RegExp(`\\b(${['TO', 'FIX'].map((x, i) => x + ['DO', 'ME'][i]).join('|')})\\b`);
    expect(sources.filter(({ text }) => marks.test(text)).map(({ path }) => path)).toEqual([]);
  });
});

describe('folders', () => {
  it('at the top are only those of the architecture, each with a README', () => {
    const folders = entries('').filter(({ name, isFolder }) => isFolder && !name.startsWith('.'));
    const known = [...TOP_FOLDERS, 'node_modules', 'docs', 'coverage', 'dist'];
    expect(folders.map(({ name }) => name).filter((name) => !known.includes(name))).toEqual([]);
    expect(TOP_FOLDERS.filter((name) => !existsSync(`${ROOT}${name}/README.md`))).toEqual([]);
  });

  it('of actors each have a README', () => {
    const actors = entries('actors').filter(({ isFolder }) => isFolder);
    expect(
      actors.filter(({ name }) => !existsSync(`${ROOT}actors/${name}/README.md`)).map(({ name }) => name),
    ).toEqual([]);
  });
});

describe('statecharts', () => {
  const machines = sources
    .filter(({ path }) => /^actors\/[^/]+\/machine\.ts$/.test(path))
    .map(({ path }) => path);

  it('in the READMEs are those of the machines', async () => {
    const stale: string[] = [];
    for (const path of machines) {
      const readme = readFileSync(`${ROOT}${path.replace('machine.ts', 'README.md')}`, 'utf8');
      if (statechartSection(readme) !== statechartOf(await machineOf(path))) stale.push(path);
    }
    // `node test/support/statechart.ts --write` brings the READMEs up to date.
    expect(stale).toEqual([]);
  });
});

describe('lifecycle events', () => {
  it('are documented, each by its type', () => {
    const documented = readFileSync(`${ROOT}protocols/EVENTS.md`, 'utf8');
    const types = new Set<string>();
    const add = (text: string, pattern: RegExp) => {
      for (const match of text.matchAll(pattern)) types.add(match[1]!);
    };
    for (const { path, text } of production) {
      // Tenants, timelines and computes tell their journals' events as they are; the others choose names to tell.
      if (/^actors\/(tenant|timeline|compute)\/events\.ts$/.test(path)) {
        add(text.slice(text.search(/export type \w+Event\b/)), /type: '([a-z]+\.[a-z-]+)'/g);
      } else if (/^actors\/(safekeeper|pageserver)\/(definition|replica)\.ts$/.test(path)) {
        add(text, /(?:told|tell)\('([a-z]+\.[a-z-]+)'/g);
        add(text, /return \{\s*type: '([a-z]+\.[a-z-]+)'/g);
      }
    }
    expect(types.size).toBeGreaterThan(30);
    expect([...types].filter((type) => !documented.includes(`\`${type}\``))).toEqual([]);
  });
});
