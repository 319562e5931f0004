/** The load of scenarios about pages: a calm network, and clients that change pages. */
import type { Workload } from '../cluster/sim-postgres.ts';
import { CALM_NETWORK, type NetworkLimits } from '../world/network.ts';
import type { ScenarioContext } from './scenario.ts';

export interface PageLoadChoices {
  /** Pauses of a client between two transactions; the last is the simplest. */
  thinkMs: readonly number[];
  /** Shares of records that cross pages and pieces; none without it. */
  longShare?: readonly number[];
}

/** Draws it. The order of the draws is a part of what a seed means. */
export function drawPageLoad(
  { random, decide, pick }: ScenarioContext,
  { thinkMs, longShare }: PageLoadChoices,
): { network: NetworkLimits; workload: Workload } {
  const network = {
    ...CALM_NETWORK,
    latencyMs: pick('network.latencyMs', [0.05, 0.5, 3], 0.5),
    keepaliveMs: 3000,
  };
  const workload = {
    clients: decide('workload.clients', () => 1 + random.int(3), 1),
    thinkMs: pick('workload.thinkMs', thinkMs, thinkMs.at(-1)!),
    recordBytes: 100,
    longShare: longShare ? pick('workload.longShare', longShare, 0) : 0,
    pieceBytes: pick('workload.pieceBytes', [3000, 50_000], 50_000),
    electTimeoutMs: 5000,
    lagMs: 0,
    pageShare: 0.7,
  };
  return { network, workload };
}
