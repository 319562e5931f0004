/**
 * Templates: a freshly made cluster as one image layer in object storage, shared by all timelines that begin with it.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { decodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { FileLayer } from './file-layer.ts';
import { type LayerDescriptor, upcastDescriptor } from './layer-descriptor.ts';
import { PageHistory } from './page-history.ts';
import type { ShardParent } from './shard.ts';
import { stateAt } from './state-history.ts';
import type { ShardTools } from './tools.ts';

export const TEMPLATE_FORMAT = 1;

/** The template's index object. */
export interface TemplateIndex {
  format: number;
  pgVersion: number;
  /** Decimal. */
  systemId: string;
  /** End of the cluster's shutdown checkpoint: where its timelines' WAL begins. */
  startLsn: number;
  layer: LayerDescriptor;
}

/** Opens the template whose index object is `key`. Throws `not-found`, `corrupt` or `unsupported`. */
export async function openTemplate(key: string, tools: ShardTools): Promise<ShardParent> {
  const index = parseTemplate(key, await tools.objects.get(key));
  const history = new PageHistory(index.pgVersion, tools);
  history.files.replace([new FileLayer(upcastDescriptor(index.layer))], []);
  const foldAt = async (lsn: number): Promise<TimelineStateFold> => {
    if (lsn < index.startLsn) {
      throw new PalimpsestError('not-found', `${formatLsn(lsn)} is before the beginning of the template`);
    }
    const view = await stateAt(history, index.startLsn, tools);
    return decodeTimelineState(view.waypoint().state);
  };
  return { history, lsn: index.startLsn, foldAt, foldAtTime: async () => undefined };
}

function parseTemplate(key: string, bytes: Uint8Array): TemplateIndex {
  let index: TemplateIndex;
  try {
    index = JSON.parse(new TextDecoder().decode(bytes)) as TemplateIndex;
  } catch (error) {
    throw new PalimpsestError('corrupt', `template ${key} cannot be read`, undefined, error);
  }
  if (index.format !== TEMPLATE_FORMAT) {
    throw new PalimpsestError('unsupported', `template ${key} has format ${index.format}`);
  }
  return index;
}
