import { VerificationOutcome } from '@keygate/contracts'
import { Compile } from 'typebox/compile'
import { Pool } from 'undici'

/** key-service did not answer, refused the gateway itself, or answered something else: never the client's fault. */
export class KeyServiceUnavailableError extends Error {
  constructor (reason: string, options?: ErrorOptions) {
    super(`key-service cannot answer: ${reason}`, options)
    this.name = 'KeyServiceUnavailableError'
  }
}

export interface KeyServiceClient {
  /** Which key has the secret with this digest? @throws {KeyServiceUnavailableError} */
  verify: (digest: string) => Promise<VerificationOutcome>
  close: () => Promise<void>
}

const outcome = Compile(VerificationOutcome)

/** Asks key-service over HTTP. Only digests travel, never a secret. */
export function createKeyServiceClient ({ url, token, timeoutMs }: { url: string, token: string, timeoutMs: number }): KeyServiceClient {
  const pool = new Pool(url, { connections: 8, connect: { timeout: timeoutMs } })
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', accept: 'application/json' }
  return {
    async verify (digest) {
      try {
        const response = await pool.request({ method: 'POST', path: '/v1/verifications', headers, body: JSON.stringify({ digest }), signal: AbortSignal.timeout(timeoutMs) })
        const body: unknown = await response.body.json()
        if (response.statusCode !== 200) throw new KeyServiceUnavailableError(`status ${response.statusCode}`)
        if (!outcome.Check(body)) throw new KeyServiceUnavailableError('its answer has an unknown shape')
        return body
      } catch (error) {
        throw error instanceof KeyServiceUnavailableError ? error : new KeyServiceUnavailableError((error as Error).message, { cause: error })
      }
    },
    close: async () => { await pool.destroy() }
  }
}
