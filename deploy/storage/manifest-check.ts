/**
 * Manifests: what objects know of projects and timelines, from which a recovery brings everything back. Each must be readable, and
 * every timeline that has objects must have one.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ObjectInfo, Objects } from '../../runtime/ports/objects.ts';
import { isManifestKey, MANIFESTS_PREFIX, readManifest } from '../node/manifests.ts';
import { MARK_KEY } from '../node/objects-mark.ts';
import { WRITTEN_KEY } from '../node/written-manifests.ts';
import type { Finding } from './findings.ts';

/** Timelines by the keys of their manifests; none of an installation from before there were manifests. */
export function manifestTimelines(others: ObjectInfo[]): Set<string> {
  const found = new Set<string>();
  for (const { key } of others) {
    const timeline = /^projects\/[0-9a-f]{32}\/timelines\/([0-9a-f]{32})\.json$/.exec(key)?.[1];
    if (timeline !== undefined) found.add(timeline);
  }
  return found;
}

/** Lists them anew when looked at again. */
export async function checkManifests(
  objects: Objects,
  others: ObjectInfo[],
  timelines: { timeline: string; owner: string; prefix: string }[],
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { key } of others) {
    if (key === MARK_KEY || key === WRITTEN_KEY) continue;
    if (!isManifestKey(key)) {
      findings.push({ severity: 'note', kind: 'unknown', key, message: 'an object of an unknown kind' });
      continue;
    }
    const finding = await checkManifest(objects, key);
    if (finding) findings.push(finding);
  }
  const known = manifestTimelines(others);
  if (known.size === 0) return findings;
  for (const { timeline, owner, prefix } of timelines) {
    if (known.has(owner)) continue;
    const message = 'no manifest tells of this timeline: a recovery from objects would leave it out';
    findings.push({ severity: 'problem', kind: 'missing', timeline, key: prefix, message });
  }
  return findings;
}

async function checkManifest(objects: Objects, key: string): Promise<Finding | undefined> {
  try {
    await readManifest(objects, key);
    return undefined;
  } catch (error) {
    const { code, message } = error as PalimpsestError;
    if (!(error instanceof PalimpsestError) || code === 'unavailable' || code === 'timeout') throw error;
    // A project that is being deleted.
    if (code === 'not-found') return undefined;
    return { severity: 'problem', kind: code === 'unsupported' ? 'unknown' : 'corrupt', key, message };
  }
}

/** All objects outside of timelines and templates, as they are now. */
export async function listManifests(objects: Objects): Promise<ObjectInfo[]> {
  const found: ObjectInfo[] = [];
  for await (const info of objects.list(MANIFESTS_PREFIX)) found.push(info);
  return found;
}
