/** Compares a shard at a moment with the reference: every page, every size, every value, the folded state. */
import type { Shard } from '../../actors/pageserver/shard.ts';
import { directoryAt } from '../../actors/pageserver/shard-queries.ts';
import type { ShardTools } from '../../actors/pageserver/tools.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import { encodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { ownsPage } from '../../protocols/shard-layout.ts';
import type { Moment } from './reference.ts';

const BATCH = 64;
const FINDINGS_MAX = 10;

/** Findings in words, none when all is equal. Of a shard of several its own pages are looked at. */
export async function compareWithMoment(
  shard: Shard,
  tools: ShardTools,
  moment: Moment,
  only: (key: string) => boolean = () => true,
): Promise<string[]> {
  const findings: string[] = [];
  const view = await shard.view(moment.lsn);
  const sizes = new Map<string, number>();
  view.forEachSize((relation, blocks) => {
    const { spc, db, rel, fork } = tools.relations.tag(relation);
    if (blocks >= 0 && spc !== 0) sizes.set(`${spc}/${db}/${rel}/${fork}`, blocks);
  });
  for (const [key, blocks] of sizes) {
    if (!moment.relations.has(key)) findings.push(`${key} exists with ${blocks} blocks and should not`);
  }
  for (const [key, checksums] of moment.relations) {
    if (!only(key)) continue;
    if (findings.length > FINDINGS_MAX) break;
    // A truncation makes the reference know forks that never existed.
    if ((sizes.get(key) ?? 0) !== checksums.length) {
      findings.push(`${key} has ${sizes.get(key)} blocks instead of ${checksums.length}`);
      continue;
    }
    findings.push(...(await comparePages(shard, tools, key, checksums, moment.lsn)));
  }
  const values = view.values();
  for (const [key, value] of moment.values) {
    if (!values.has(key) || Buffer.compare(values.get(key)!, value) !== 0)
      findings.push(`value ${key} differs`);
  }
  for (const db of moment.databases) {
    if (!values.has(`database/${db}`)) findings.push(`database ${db} is missing`);
    if ((await directoryAt(shard, tools, moment.lsn, db)).length === 0)
      findings.push(`database ${db} is empty`);
  }
  const fold = await shard.foldAt(moment.lsn);
  if (Buffer.compare(encodeTimelineState(fold, shard.spec.pgVersion), moment.state) !== 0) {
    findings.push('the folded state differs');
  }
  return findings;
}

async function comparePages(
  shard: Shard,
  tools: ShardTools,
  key: string,
  checksums: Uint32Array,
  lsn: number,
): Promise<string[]> {
  const findings: string[] = [];
  const [spc, db, rel, fork] = key.split('/').map(Number) as [number, number, number, number];
  const relation = tools.relations.idOf(spc, db, rel, fork);
  for (let first = 0; first < checksums.length; first += BATCH) {
    const count = Math.min(BATCH, checksums.length - first);
    const out = new Uint8Array(count * PAGE_BYTES);
    const blocks = Float64Array.from({ length: count }, (_, i) => first + i);
    await shard.reader.read({ relations: new Int32Array(count).fill(relation), blocks }, lsn, out);
    for (let i = 0; i < count; i++) {
      if (!ownsPage(shard.spec.shard, { spc, rel }, first + i)) continue;
      if (crc32c(out, i * PAGE_BYTES, (i + 1) * PAGE_BYTES) === checksums[first + i]) continue;
      findings.push(`${key} block ${first + i} differs`);
    }
  }
  return findings;
}
