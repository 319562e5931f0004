/**
 * Figures of all processes in one place: each process answers `pal.cmd.metrics.<node>` with its families, and whoever serves them
 * asks all nodes and adds the label `node`.
 */
import { type MetricFamily, type MetricsRegistry, renderOpenMetrics } from '../adapters/open-metrics.ts';
import { sendCommand, serveCommands } from '../bus/command.ts';
import type { Bus, Subscription } from '../ports/bus.ts';
import type { Log } from '../ports/log.ts';

const METRICS_KIND = 'metrics';
/** A process that is too busy to answer is left out, so that the figures of the others are not late. */
const ASK_TIMEOUT_MS = 1_000;

/** Answers with this process' figures. `beforeCollect` sets gauges that are only worth computing when asked for. */
export function serveMetrics(
  bus: Bus,
  node: string,
  registry: MetricsRegistry,
  beforeCollect?: () => void,
): Subscription {
  return serveCommands<{ type: string }>(bus, METRICS_KIND, node, async () => {
    beforeCollect?.();
    return registry.collect();
  });
}

/** Asks all nodes and writes what they answer as OpenMetrics text. */
export async function collectMetrics(bus: Bus, nodes: string[], log: Log): Promise<string> {
  const answers = await Promise.all(nodes.map((node) => ask(bus, node, log)));
  return renderOpenMetrics(answers.flat());
}

async function ask(bus: Bus, node: string, log: Log): Promise<MetricFamily[]> {
  try {
    const command = { type: 'collect' };
    const families = await sendCommand<MetricFamily[]>(bus, METRICS_KIND, node, command, {
      timeoutMs: ASK_TIMEOUT_MS,
    });
    return families.map((family) => ({
      ...family,
      series: family.series.map((series) => ({ ...series, labels: { node, ...series.labels } })),
    }));
  } catch (error) {
    log.debug({ error, node }, 'a node does not answer with its figures');
    return [];
  }
}
