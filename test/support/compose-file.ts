/** deploy/compose/compose.yaml as a test reads it: aliases and variables resolved as Docker Compose resolves them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { ROOT } from './source-files.ts';

export interface ComposeService {
  image: string;
  command: string[];
  environment?: Record<string, string>;
  volumes?: string[];
  cap_add?: string[];
  devices?: string[];
  depends_on?: string[];
}

export interface ComposeFile {
  services: Record<string, ComposeService>;
  volumes: Record<string, null>;
}

export const COMPOSE_FILE = join(ROOT, 'deploy/compose/compose.yaml');

export function readCompose(variables: Record<string, string> = {}): ComposeFile {
  const resolve = (text: string) =>
    text.replaceAll(
      /\$\{([A-Z0-9_]+):-([^}]*)\}/g,
      (_, name: string, fallback: string) => variables[name] ?? fallback,
    );
  const text = readFileSync(COMPOSE_FILE, 'utf8');
  return parse(text, (_, value) => (typeof value === 'string' ? resolve(value) : value), { merge: true });
}
