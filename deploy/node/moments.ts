/**
 * Moments: points in a branch's history at which somebody reads. They are named `BRANCH@LSN` or `BRANCH@TIME`, where a
 * client names a branch.
 */
import { computeId } from '../../actors/compute/compute-id.ts';
import type { BranchDirectory, BranchLookup } from '../../actors/gateway/gateway.ts';
import { resolveBranchPoint } from '../../actors/timeline/branch-point.ts';
import type { BranchPoint } from '../../actors/timeline/events.ts';
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { type Lsn, lsn, parseLsn } from '../../protocols/lsn.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { parsePoint } from '../cli/values.ts';
import type { BranchStart } from '../client/control.ts';
import type { ControlActors } from './control-actors.ts';

const PAGESERVER_TIMEOUT_MS = 5_000;

/** A moment, as the timeline that has it. */
export interface Moment {
  timeline: string;
  /** End of a record. */
  lsn: Lsn;
}

export interface MomentsOptions {
  actors: ControlActors;
  bus: Bus;
  clock: Clock;
}

export class Moments implements BranchDirectory {
  readonly #options: MomentsOptions;

  constructor(options: MomentsOptions) {
    this.#options = options;
  }

  /**
   * Finds the exact LSN of a moment of a timeline, and the timeline (itself or an ancestor) that has it. Throws
   * `invalid-argument` or `not-found` for a moment outside of its history.
   */
  async resolve(timeline: string, point: BranchPoint): Promise<Moment> {
    const { actors, bus, clock } = this.#options;
    await actors.attachments.attached(timeline);
    const own = point.kind === 'lsn' ? await this.#resolveOwn(timeline, point.lsn) : undefined;
    if (own) return own;
    const found = await resolveBranchPoint({
      send: (kind, target, command, options) => sendCommand(bus, kind, target, command, options),
      clock,
      timeline,
      point,
    });
    await actors.attachments.attached(found.timeline);
    return { timeline: found.timeline, lsn: lsn(found.lsn) };
  }

  /**
   * The short way for an LSN of the timeline's own kept history that the pageserver has: it has committed WAL only, so no quorum
   * of safekeepers need be asked whether it is one of the past.
   */
  async #resolveOwn(timeline: string, position: number): Promise<Moment | undefined> {
    const { actors, bus } = this.#options;
    const { timeline: status } = actors.timelineWithProject(timeline);
    // Below the cutoff only points that end a record are kept, and resolving needs WAL that may be gone.
    if (status.state !== 'active' || position <= status.startLsn || position < status.cutoffLsn)
      return undefined;
    const ask = <T>(command: { type: string; lsn?: number }) =>
      sendCommand<T>(bus, 'pageserver', timeline, command, { timeoutMs: PAGESERVER_TIMEOUT_MS });
    const { lastLsn } = await ask<{ lastLsn: number }>({ type: 'status' });
    if (position > lastLsn) return undefined;
    const found = await ask<{ lsn: number }>({ type: 'resolve', lsn: position });
    return { timeline, lsn: lsn(Math.max(found.lsn, status.startLsn)) };
  }

  /** For the gateway: the compute that a client's words mean. */
  find(project: string | undefined, endpoint: string | undefined): BranchLookup | Promise<BranchLookup> {
    const { actors } = this.#options;
    const at = endpoint?.indexOf('@') ?? -1;
    if (at < 0) return actors.find(project, endpoint);
    return this.#findMoment(project, endpoint!.slice(0, at) || undefined, endpoint!.slice(at + 1));
  }

  async #findMoment(
    project: string | undefined,
    name: string | undefined,
    text: string,
  ): Promise<BranchLookup> {
    const branch = await this.#options.actors.find(project, name);
    if (branch.status !== 'found') return branch;
    const { timeline } = branch;
    try {
      const point = branchPoint(parsePoint(text, this.#options.clock.now()));
      const moment = await this.resolve(timeline, point);
      return { status: 'found', timeline: computeId({ timeline: moment.timeline, fixedLsn: moment.lsn }) };
    } catch (error) {
      return { status: 'no-moment', error: toWireError(error) };
    }
  }
}

/** A point as a user may name it; without one it is the newest state. Throws `invalid-argument`. */
export function branchPoint(at: BranchStart | undefined): BranchPoint {
  if (at?.lsn !== undefined) {
    const position = parseLsn(at.lsn);
    if (position !== undefined) return { kind: 'lsn', lsn: position };
    throw new PalimpsestError('invalid-argument', `"${at.lsn}" is not an LSN`, 'write it like 0/1A2B3C4');
  }
  return at?.timeMs === undefined ? { kind: 'head' } : { kind: 'time', timeMs: at.timeMs };
}
