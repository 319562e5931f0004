/**
 * The first packet that a Postgres client sends: a startup message, a request for encryption, or a request to cancel
 * another connection's query. It has no type byte: u32 length (itself included), u32 code, body; all big endian.
 *
 * The bytes come from anybody who can reach the port, so everything is checked against the bytes that are there.
 */

/** The same limit as Postgres' own (MAX_STARTUP_PACKET_LENGTH). */
export const STARTUP_BYTES_MAX = 10_000;

const CODE_CANCEL = 80877102;
const CODE_SSL = 80877103;
const CODE_GSS = 80877104;
const PROTOCOL_MAJOR = 3;

export type FirstPacket =
  /** More bytes are needed. */
  | { kind: 'incomplete' }
  /** SSLRequest or GSSENCRequest; `bytes` is its size, after which the real first packet comes. */
  | { kind: 'encryption'; bytes: number }
  /** `key` is process id and secret as BackendKeyData showed them. */
  | { kind: 'cancel'; key: Uint8Array; bytes: number }
  | { kind: 'startup'; version: number; parameters: [name: string, value: string][]; bytes: number }
  | { kind: 'invalid'; reason: string };

const utf8 = new TextDecoder('utf-8', { fatal: true });
const encoder = new TextEncoder();

/** Reads the packet at the start of `data`. Never throws. */
export function parseFirstPacket(data: Uint8Array): FirstPacket {
  if (data.length < 4) return { kind: 'incomplete' };
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const bytes = view.getUint32(0);
  if (bytes < 8 || bytes > STARTUP_BYTES_MAX) {
    return { kind: 'invalid', reason: `invalid length of startup packet: ${bytes}` };
  }
  if (data.length < bytes) return { kind: 'incomplete' };
  const code = view.getUint32(4);
  if (code === CODE_SSL || code === CODE_GSS) {
    return bytes === 8 ? { kind: 'encryption', bytes } : { kind: 'invalid', reason: 'malformed request' };
  }
  if (code === CODE_CANCEL) {
    if (bytes < 16) return { kind: 'invalid', reason: 'malformed cancel request' };
    return { kind: 'cancel', key: data.slice(8, bytes), bytes };
  }
  if (code >>> 16 !== PROTOCOL_MAJOR) {
    const shown = `${code >>> 16}.${code & 0xffff}`;
    return { kind: 'invalid', reason: `unsupported frontend protocol ${shown}: only 3.x is supported` };
  }
  return parseParameters(data.subarray(8, bytes), code, bytes);
}

function parseParameters(body: Uint8Array, version: number, bytes: number): FirstPacket {
  const parameters: [string, string][] = [];
  let at = 0;
  while (at < body.length && body[at] !== 0) {
    const nameEnd = body.indexOf(0, at);
    const valueEnd = nameEnd < 0 ? -1 : body.indexOf(0, nameEnd + 1);
    if (valueEnd < 0) return { kind: 'invalid', reason: 'startup parameter without a terminator' };
    try {
      parameters.push([
        utf8.decode(body.subarray(at, nameEnd)),
        utf8.decode(body.subarray(nameEnd + 1, valueEnd)),
      ]);
    } catch {
      return { kind: 'invalid', reason: 'startup parameters are not valid UTF-8' };
    }
    at = valueEnd + 1;
  }
  if (at !== body.length - 1) {
    return { kind: 'invalid', reason: 'invalid startup packet layout: expected terminator as last byte' };
  }
  return { kind: 'startup', version, parameters, bytes };
}

/** Builds a startup message. */
export function encodeStartup(
  version: number,
  parameters: readonly (readonly [string, string])[],
): Uint8Array {
  const body = encoder.encode(`${parameters.map(([name, value]) => `${name}\0${value}\0`).join('')}\0`);
  const packet = new Uint8Array(8 + body.length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, packet.length);
  view.setUint32(4, version);
  packet.set(body, 8);
  return packet;
}

/** Builds a request to cancel what the connection with this key runs. */
export function encodeCancel(key: Uint8Array): Uint8Array {
  const packet = new Uint8Array(8 + key.length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, packet.length);
  view.setUint32(4, CODE_CANCEL);
  packet.set(key, 8);
  return packet;
}
