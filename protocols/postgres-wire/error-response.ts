/**
 * ErrorResponse and NoticeResponse: a type byte, u32 length, then fields: a letter, text, zero; a zero ends them.
 */
export interface ErrorFields {
  severity: 'FATAL' | 'ERROR' | 'WARNING' | 'NOTICE';
  /** SQLSTATE. */
  code: string;
  message: string;
  detail?: string | undefined;
  hint?: string | undefined;
}

const TYPE_ERROR = 0x45;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Builds an ErrorResponse that every client library understands. */
export function encodeErrorResponse(fields: ErrorFields): Uint8Array {
  const clean = (text: string) => text.replaceAll('\0', '');
  let text = `S${fields.severity}\0V${fields.severity}\0C${fields.code}\0M${clean(fields.message)}\0`;
  if (fields.detail !== undefined) text += `D${clean(fields.detail)}\0`;
  if (fields.hint !== undefined) text += `H${clean(fields.hint)}\0`;
  const body = encoder.encode(`${text}\0`);
  const message = new Uint8Array(5 + body.length);
  message[0] = TYPE_ERROR;
  new DataView(message.buffer).setUint32(1, 4 + body.length);
  message.set(body, 5);
  return message;
}

/** The fields of an error's or notice's body by their letters. Stops quietly at a malformed end. */
export function decodeFields(body: Uint8Array): Map<string, string> {
  const fields = new Map<string, string>();
  let at = 0;
  while (at < body.length && body[at] !== 0) {
    const end = body.indexOf(0, at + 1);
    if (end < 0) break;
    fields.set(String.fromCharCode(body[at]!), decoder.decode(body.subarray(at + 1, end)));
    at = end + 1;
  }
  return fields;
}
