/**
 * Tokens of computes: the holder of the control lease signs one when it starts a compute, and renews it for as long as its timeline
 * is there.
 */
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { ALL_RIGHTS, RIGHT_GET_PAGE } from '../../protocols/tokens.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import {
  CHANNEL_TOKEN_ID,
  CHANNEL_TOKEN_KIND,
  type ChannelTokenCommand,
} from '../../runtime/channels/token-keeper.ts';
import type { TokenIssuer, TokenJudge } from '../../runtime/channels/tokens.ts';
import type { Bus } from '../../runtime/ports/bus.ts';

/**
 * A compute may run on through an outage that its token does not outlive. What has ended opens no channel; it only shows, for a while,
 * whose it was.
 */
const ENDED_MS_MAX = 7 * 86_400_000;

export interface ChannelTokensOptions {
  issuer: TokenIssuer;
  judge: TokenJudge;
  lifeMs: number;
}

export class ChannelTokens {
  readonly #options: ChannelTokensOptions;

  constructor(options: ChannelTokensOptions) {
    this.#options = options;
  }

  /** The token of a compute that starts on a node: one of a past moment may only read. */
  issue({ tenant, timeline, fixedLsn }: ComputeSpec, node: string): Uint8Array {
    const { issuer, lifeMs } = this.#options;
    const rights = fixedLsn === undefined ? ALL_RIGHTS : RIGHT_GET_PAGE;
    return issuer.issue({ tenant, timeline, bearer: `compute on ${node}`, rights, lifeMs });
  }

  /** `tenantOf` throws `not-found` for a timeline that is not there any more. */
  serve(bus: Bus, tenantOf: (timeline: string) => string): void {
    serveCommands<ChannelTokenCommand>(bus, CHANNEL_TOKEN_KIND, CHANNEL_TOKEN_ID, async (command) => {
      if (command.type !== 'renew' || !(command.token instanceof Uint8Array)) {
        throw new PalimpsestError('invalid-argument', 'a token can only be renewed, with the one before it');
      }
      const { issuer, judge, lifeMs } = this.#options;
      const { tenant, timeline, bearer, rights } = judge.judge(command.token, { endedMsMax: ENDED_MS_MAX });
      if (tenantOf(timeline) !== tenant) {
        throw new PalimpsestError('permission-denied', `timeline ${timeline} is not of project ${tenant}`);
      }
      return { token: issuer.issue({ tenant, timeline, bearer, rights, lifeMs }) };
    });
  }
}
