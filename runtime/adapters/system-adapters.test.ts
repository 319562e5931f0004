import { describe, expect, it } from 'vitest';
import { MemoryBus } from '../bus/memory-bus.ts';
import { collectMetrics, serveMetrics } from '../metrics/collect.ts';
import type { Log } from '../ports/log.ts';
import { serveMetricsOverHttp } from './http-metrics.ts';
import { MetricsRegistry, renderOpenMetrics } from './open-metrics.ts';
import { createLog } from './pino-log.ts';
import { SystemClock } from './system-clock.ts';
import { SystemRandom } from './system-random.ts';

const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent };

describe('figures', () => {
  it('are written as OpenMetrics text', () => {
    const registry = new MetricsRegistry();
    registry.counter('pal_appends_total', 'Appends.', { node: 'sk1' }).add(2);
    registry.counter('pal_appends', 'Appends.', { node: 'sk1' }).add(1);
    registry.gauge('pal_lag_bytes', 'A "lag"\nin bytes.').set(1.5);
    const histogram = registry.histogram('pal_sync_seconds', 'Syncs.', [0.001, 1]);
    for (const value of [0.0005, 0.001, 0.5, 7]) histogram.observe(value);
    expect(renderOpenMetrics(registry.collect()).split('\n')).toEqual([
      '# TYPE pal_appends counter',
      '# HELP pal_appends Appends.',
      'pal_appends_total{node="sk1"} 3',
      '# TYPE pal_lag_bytes gauge',
      '# HELP pal_lag_bytes A \\"lag\\"\\nin bytes.',
      'pal_lag_bytes 1.5',
      '# TYPE pal_sync_seconds histogram',
      '# HELP pal_sync_seconds Syncs.',
      'pal_sync_seconds_bucket{le="0.001"} 2',
      'pal_sync_seconds_bucket{le="1.0"} 3',
      'pal_sync_seconds_bucket{le="+Inf"} 4',
      'pal_sync_seconds_count 4',
      'pal_sync_seconds_sum 7.5015',
      '# TYPE palimpsest_metrics_dropped_series gauge',
      '# HELP palimpsest_metrics_dropped_series Series that are counted but not shown, because there are too many.',
      'palimpsest_metrics_dropped_series 0',
      '# EOF',
      '',
    ]);
  });

  it('refuse a name with two meanings, and bound their series', () => {
    const registry = new MetricsRegistry();
    registry.counter('a', 'A.');
    expect(() => registry.gauge('a', 'A.')).toThrow(RangeError);
    expect(() => registry.counter('1a', 'A.')).toThrow(RangeError);
    for (let i = 0; i < 5_010; i++) registry.counter('many', 'Many.', { i: String(i) }).add(1);
    expect(renderOpenMetrics(registry.collect())).toContain('palimpsest_metrics_dropped_series 10\n');
  });

  it('of all nodes are served at one place, without those that do not answer', async () => {
    const bus = new MemoryBus({ clock: new SystemClock() });
    for (const node of ['sk1', 'sk2']) {
      const registry = new MetricsRegistry();
      const gauge = registry.gauge('pal_up', 'Up.');
      serveMetrics(bus, node, registry, () => gauge.set(1));
    }
    const collect = () => collectMetrics(bus, ['sk1', 'sk2', 'sk3'], silent);
    const endpoint = await serveMetricsOverHttp({ port: 0, collect, log: silent });
    const url = `http://127.0.0.1:${endpoint.port}`;
    const response = await fetch(`${url}/metrics`);
    expect(response.headers.get('content-type')).toContain('application/openmetrics-text');
    const text = await response.text();
    expect(text).toContain(
      '# TYPE pal_up gauge\n# HELP pal_up Up.\npal_up{node="sk1"} 1\npal_up{node="sk2"} 1\n',
    );
    expect((await fetch(url)).status).toBe(404);
    await expect(serveMetricsOverHttp({ port: endpoint.port, collect, log: silent })).rejects.toMatchObject({
      code: 'already-exists',
    });
    await endpoint.close();
  });
});

describe('randomness', () => {
  it('is even, within its bounds, and of the wanted length', () => {
    const random = new SystemRandom().stream('test');
    const counts = new Array(10).fill(0);
    for (let i = 0; i < 20_000; i++) counts[random.int(10)]++;
    expect(counts.every((count) => count > 1_700 && count < 2_300)).toBe(true);
    for (let i = 0; i < 1_000; i++) {
      const value = random.float();
      expect(value >= 0 && value < 1).toBe(true);
    }
    for (const count of [0, 1, 16, 4_096, 100_000]) expect(random.bytes(count).length).toBe(count);
    expect(random.bytes(16)).not.toEqual(random.bytes(16));
    expect(() => random.int(0)).toThrow(RangeError);
  });
});

describe('a log file', () => {
  it('that cannot take another byte costs its lines, not the process', async () => {
    const log = createLog({ level: 'info', file: '/dev/full' });
    for (let i = 0; i < 100; i++) {
      log.info({ i }, 'a line that finds no room');
      if (i % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  });
});
