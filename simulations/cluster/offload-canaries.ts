/** Known bugs of WAL that leaves the disks for objects, or is lost with them. */
import type { Canary } from './canaries.ts';

export const OFFLOAD_CANARIES: Canary[] = [
  {
    name: 'tail-stored-too-early',
    bug: 'a replica writes down that the tail is in objects before it is',
    wrapDecide: (_snapshot, command, decide) => {
      const decision = decide();
      if ('reject' in decision || command.type !== 'plan-partial') return decision;
      return { ...decision, events: [...decision.events, { type: 'partial.stored', key: command.key }] };
    },
  },
  {
    name: 'lost-disk-begins-anew',
    bug: 'a replica whose disk was lost votes and acknowledges again with an empty log',
    joinsAsNew: true,
  },
];
