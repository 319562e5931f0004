/**
 * The envelope of lifecycle events, which anyone may subscribe to.
 *
 * `id` is `<kind>/<actor id>/<sequence>` for events of a journal: publishing the same event again after a crash
 * is recognised by it. Events that are not journaled one by one (WAL ranges) carry an id of their own.
 */
export interface EventEnvelope {
  id: string;
  /** For example `compute.suspended`. */
  type: string;
  /** Version of the shape of `data`. */
  version: number;
  /** Milliseconds since 1970 by the writer's clock. */
  time: number;
  tenant: string;
  timeline: string;
  /** Kind and id of the actor that decided it. */
  actor: { kind: string; id: string };
  /** Position in the actor's journal. */
  sequence: number;
  data: Record<string, unknown>;
}
