/**
 * Subjects: the addresses of actors on the bus.
 *
 *   pal.cmd.<kind>.<id>                              commands (request/reply)
 *   pal.open.<kind>.<id>                             asks where the actor's channel is (request/reply)
 *   pal.channel.…                                    channels themselves, where there is no way by sockets (runtime/channels/)
 *   pal.evt.<tenant>.<timeline>.<kind>.<event>       lifecycle events (publish)
 *
 * A token that does not apply is `_`. Patterns: `*` matches one token, a last `>` the rest.
 */
export function commandSubject(kind: string, id: string): string {
  return `pal.cmd.${kind}.${id}`;
}

export function openSubject(kind: string, id: string): string {
  return `pal.open.${kind}.${id}`;
}

export function eventSubject(tenant: string, timeline: string, kind: string, event: string): string {
  return `pal.evt.${tenant || '_'}.${timeline || '_'}.${kind}.${event}`;
}

/** Whether `subject` matches `pattern` by the rules above (those of NATS). */
export function subjectMatches(pattern: string, subject: string): boolean {
  const wanted = pattern.split('.');
  const tokens = subject.split('.');
  for (let i = 0; i < wanted.length; i++) {
    if (wanted[i] === '>') return i < tokens.length;
    if (i >= tokens.length) return false;
    if (wanted[i] !== '*' && wanted[i] !== tokens[i]) return false;
  }
  return wanted.length === tokens.length;
}
