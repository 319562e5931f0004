/**
 * A write to a socket without its stream's machinery, which for a small message costs more than the system call. It is what the
 * stream itself would try first.
 */
import { writeSync } from 'node:fs';
import type { Socket } from 'node:net';

/**
 * Hands `bytes` to the system if nothing is queued on `socket` before them; returns how many bytes were taken, never waits. The
 * caller queues the rest on the socket, which also finds out what is wrong when none are taken.
 */
export function writeNow(socket: Socket, bytes: Uint8Array): number {
  if (socket.writableLength > 0 || !socket.writable || socket.connecting) return 0;
  // What goes to the descriptor of an encrypted socket is not encrypted.
  if ('encrypted' in socket) return 0;
  const fd = (socket as unknown as { _handle?: { fd?: number } | null })._handle?.fd;
  // Other systems than those of POSIX have no descriptor here.
  if (fd === undefined || fd < 0) return 0;
  try {
    return writeSync(fd, bytes, 0, bytes.length);
  } catch {
    return 0;
  }
}
