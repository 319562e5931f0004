/** Names of a journal's files: logs carry their epoch, snapshots the sequence up to which they hold everything. */
const LOG_NAME = /^(\d{8})\.log$/;
const SNAPSHOT_NAME = /^(\d{16})\.snapshot$/;

export function logName(epoch: number): string {
  return `${String(epoch).padStart(8, '0')}.log`;
}

export function snapshotName(sequence: number): string {
  return `${String(sequence).padStart(16, '0')}.snapshot`;
}

export function epochsOf(names: string[]): number[] {
  return names.flatMap((name) => LOG_NAME.exec(name)?.[1] ?? []).map(Number);
}

export function snapshotsOf(names: string[]): number[] {
  return names.flatMap((name) => SNAPSHOT_NAME.exec(name)?.[1] ?? []).map(Number);
}
