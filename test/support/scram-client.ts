/** The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding, for the test client. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';

export class ScramClient {
  readonly #password: string;
  readonly #nonce = randomBytes(18).toString('base64');

  constructor(password: string) {
    this.#password = password;
  }

  /** The first message. Postgres ignores the user name in it. */
  first(): string {
    return `n,,${this.#firstBare()}`;
  }

  /** The proof that answers the server's first message. */
  final(serverFirst: string): string {
    const fields = new Map(serverFirst.split(',').map((item) => [item[0]!, item.slice(2)]));
    const nonce = fields.get('r') ?? '';
    if (!nonce.startsWith(this.#nonce)) throw new Error('SCRAM: the server changed the nonce');
    const salt = Buffer.from(fields.get('s') ?? '', 'base64');
    const salted = pbkdf2Sync(this.#password.normalize('NFKC'), salt, Number(fields.get('i')), 32, 'sha256');
    const clientKey = hmac(salted, 'Client Key');
    const storedKey = createHash('sha256').update(clientKey).digest();
    const withoutProof = `c=biws,r=${nonce}`;
    const signature = hmac(storedKey, `${this.#firstBare()},${serverFirst},${withoutProof}`);
    const proof = Buffer.from(clientKey.map((byte, i) => byte ^ signature[i]!)).toString('base64');
    return `${withoutProof},p=${proof}`;
  }

  #firstBare(): string {
    return `n=*,r=${this.#nonce}`;
  }
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
