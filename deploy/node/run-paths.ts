/**
 * Names in the run directory: the sockets by which the processes of one installation find each other.
 */

/** The parent's bus. */
export function busAddress(runDirectory: string): string {
  return `unix:${runDirectory}/bus.sock`;
}

/** Where a process accepts channels for its actors. */
export function doorAddress(runDirectory: string, node: string): string {
  return `unix:${runDirectory}/${node}.sock`;
}
