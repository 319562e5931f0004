/** A small actor for the tests of the host: an order that is paid and shipped by effects, and expires by a deadline. */
import { assign, setup } from 'xstate';
import type { ActorDefinition, Effect } from '../../runtime/host/definition.ts';

export type OrderCommand =
  | { type: 'place'; items: number }
  | { type: 'add'; items: number }
  | { type: 'status' }
  | { type: 'refuse' }
  | { type: 'poison' }
  | { type: 'bug' };

export type OrderEvent =
  | { type: 'order.placed'; items: number; expiresAt: number }
  | { type: 'order.changed'; v: 2; by: number }
  | { type: 'order.paid'; receipt: string }
  | { type: 'order.shipped' }
  | { type: 'order.expired' }
  | { type: 'order.poisoned' };

interface OrderContext {
  items: number;
  receipt: string;
  expiresAt: number;
}

const machine = setup({
  types: {} as { context: OrderContext; events: OrderEvent },
  actions: {
    charge: (_, _params: { items: number }) => {},
    ship: () => {},
    deadline: (_, _params: unknown) => {},
  },
}).createMachine({
  id: 'order',
  initial: 'none',
  context: { items: 0, receipt: '', expiresAt: 0 },
  states: {
    none: {
      on: {
        'order.placed': {
          target: 'placed',
          actions: [
            assign(({ event }) => ({ items: event.items, expiresAt: event.expiresAt })),
            {
              type: 'charge',
              params: ({ event }: { event: OrderEvent }) => ({ items: 'items' in event ? event.items : 0 }),
            },
            {
              type: 'deadline',
              params: ({ event }: { event: OrderEvent }) => ({
                at: 'expiresAt' in event ? event.expiresAt : 0,
                event: { type: 'order.expired' },
              }),
            },
          ],
        },
      },
    },
    placed: {
      on: {
        'order.changed': { actions: assign(({ context, event }) => ({ items: context.items + event.by })) },
        'order.paid': {
          target: 'paid',
          actions: [
            assign(({ event }) => ({ receipt: event.receipt })),
            'ship',
            { type: 'deadline', params: { event: { type: 'order.expired' } } },
          ],
        },
        'order.expired': 'expired',
        'order.poisoned': {
          actions: assign((): Partial<OrderContext> => {
            throw new Error('the machine cannot take this');
          }),
        },
      },
    },
    paid: { on: { 'order.shipped': 'shipped' } },
    shipped: {},
    expired: {},
  },
});

/** Makes the definition with the given effects; by default they never finish. */
export function orderDefinition(
  effects: { charge?: Effect<OrderCommand, OrderEvent>; ship?: Effect<OrderCommand, OrderEvent> } = {},
): ActorDefinition<OrderCommand, OrderEvent> {
  const never = () => new Promise<OrderEvent[]>(() => {});
  return {
    kind: 'order',
    machine,
    decide(snapshot, command, environment) {
      switch (command.type) {
        case 'place':
          return {
            events: [{ type: 'order.placed', items: command.items, expiresAt: environment.now + 60_000 }],
            reply: { items: command.items },
          };
        case 'add':
          return { events: [{ type: 'order.changed', v: 2, by: command.items }] };
        case 'status':
          return { events: [], reply: { state: snapshot.value, ...snapshot.context } };
        case 'poison':
          return { events: [{ type: 'order.poisoned' }] };
        case 'bug':
          throw new TypeError('a bug in decide');
        default:
          return { reject: { code: 'conflict', message: 'it cannot be', hint: 'do something else' } };
      }
    },
    effects: { charge: effects.charge ?? never, ship: effects.ship ?? never },
    versions: { 'order.changed': 2 },
    upcast(event) {
      // Version 1 said how many there are more under another name.
      if (event.type === 'order.changed' && (event.v ?? 1) === 1) {
        return { type: 'order.changed', v: 2, by: (event as unknown as { more: number }).more };
      }
      return event as OrderEvent;
    },
    lifecycle(event, snapshot, id) {
      if (event.type === 'order.changed') return undefined;
      return { tenant: 't', timeline: '', type: event.type, data: { id, items: snapshot.context.items } };
    },
  };
}
