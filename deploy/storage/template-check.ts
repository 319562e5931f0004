/**
 * Templates: the freshly made clusters that timelines begin with. Each has an index with one layer.
 */
import type { TemplateIndex } from '../../actors/pageserver/template.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ObjectInfo, Objects } from '../../runtime/ports/objects.ts';
import type { Finding } from './findings.ts';
import type { LayerSource } from './layer-inspection.ts';
import { objectSource } from './layer-source.ts';

/** Checks all templates; those in `wanted` (keys of indexes) must be there. */
export async function checkTemplates(
  objects: Objects,
  templates: ObjectInfo[],
  wanted: Set<string>,
  checkContent: (source: LayerSource) => Promise<void>,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const byKey = new Map(templates.map((info) => [info.key, info]));
  for (const key of wanted) {
    if (!byKey.has(key))
      findings.push(problem('missing', key, 'timelines begin with this template, but it is not there'));
  }
  for (const { key } of templates) {
    if (!key.endsWith('/index.json')) continue;
    let place = key;
    try {
      const { layer } = JSON.parse(new TextDecoder().decode(await objects.get(key))) as TemplateIndex;
      place = layer.key;
      const info = byKey.get(layer.key);
      if (!info)
        findings.push(problem('missing', layer.key, `template ${key} lists this layer, but it is not there`));
      else if (info.bytes !== layer.bytes) {
        const message = `the object has ${info.bytes} bytes, the template says ${layer.bytes}`;
        findings.push(problem('corrupt', layer.key, message));
      } else await checkContent(objectSource(objects, info));
    } catch (error) {
      const code = error instanceof PalimpsestError ? error.code : 'corrupt';
      if (code === 'unavailable' || code === 'timeout') throw error;
      const kind = code === 'not-found' ? 'missing' : code === 'unsupported' ? 'unknown' : 'corrupt';
      findings.push(problem(kind, place, (error as Error).message));
    }
  }
  return findings;
}

function problem(kind: Finding['kind'], key: string, message: string): Finding {
  return { severity: 'problem', kind, key, message };
}
