/**
 * `import { connect } from 'palimpsest'`: commands and events of a running system, typed.
 */
export { PalimpsestError } from '../../protocols/errors.ts';
export type { EventEnvelope } from '../../protocols/events.ts';
export {
  type ConnectOptions,
  connect,
  NotRunningError,
  PalimpsestClient,
  type SubscribeOptions,
} from './client.ts';
export type {
  BranchStart,
  BranchView,
  GcView,
  HistoryView,
  MomentView,
  NodeView,
  PlacementView,
  ProcessView,
  ProjectView,
  StatusView,
} from './control.ts';
