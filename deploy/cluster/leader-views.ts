/** What the holder of the control lease tells of itself and its nodes. */
import { VERSION } from '../version.ts';
import { type KnownNode, pageserverNode, safekeeperNode } from './registry.ts';

export interface AboutOptions {
  node: string;
  startedMs: number;
  safekeepers: number;
  suspendAfterSeconds: number;
  /** The nodes as they are known at the moment. */
  nodes(): KnownNode[];
}

/** The head of the status. Its address is that of some gateway that is alive. */
export function aboutCluster({ node, startedMs, safekeepers, suspendAfterSeconds, nodes }: AboutOptions) {
  const gateway = () => nodes().find(({ alive, port }) => alive && port !== undefined);
  return {
    version: VERSION,
    pid: process.pid,
    get port() {
      return gateway()?.port ?? 0;
    },
    get host() {
      return gateway()?.host ?? '127.0.0.1';
    },
    dataDir: `cluster, controlled by node ${node}`,
    startedAt: new Date(startedMs).toISOString(),
    safekeepers,
    suspendAfterSeconds,
  };
}

/** The processes that have figures. */
export function figureNodes(own: string, nodes: KnownNode[]): string[] {
  const alive = nodes.filter((node) => node.alive);
  const safekeepers = alive.filter(({ roles }) => roles.includes('safekeeper'));
  const pageservers = alive.filter(({ roles }) => roles.includes('pageserver'));
  return [
    `control-${own}`,
    ...safekeepers.map(({ name }) => safekeeperNode(name)),
    ...pageservers.map(({ name }) => pageserverNode(name)),
  ];
}
