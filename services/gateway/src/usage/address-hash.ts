import { createHmac } from 'node:crypto'

/** What the key is for; another purpose of the same secret would have another one. */
const purpose = 'keygate: addresses of callers in usage, 1'

/**
 * Writes addresses down so that two can be told apart and no more: half an HMAC-SHA-256, base64url. A hash without a key would not do that, since
 * all addresses of IPv4 are tried in minutes.
 *
 * @param secret of this installation: whoever has it too (each gateway, also after a restart) writes the same, and nobody else can try addresses.
 */
export function addressHash (secret: string): (address: string) => string {
  const key = createHmac('sha256', secret).update(purpose).digest()
  return address => createHmac('sha256', key).update(address).digest().subarray(0, 16).toString('base64url')
}
