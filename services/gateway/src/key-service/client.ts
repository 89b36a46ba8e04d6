import { AcceptedOutcome, ChangesPage, type VerificationOutcome } from '@keygate/contracts'
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
  /** Versions raised since a cursor; `gone` when they are no longer kept. @throws {KeyServiceUnavailableError} */
  changes: (after: string | undefined) => Promise<ChangesPage | 'gone'>
  close: () => Promise<void>
}

const outcome = Compile(AcceptedOutcome)
const changesPage = Compile(ChangesPage)

/** Asks key-service over HTTP. Only digests travel, never a secret. */
export function createKeyServiceClient ({ url, token, timeoutMs }: { url: string, token: string, timeoutMs: number }): KeyServiceClient {
  const pool = new Pool(url, { connections: 8, connect: { timeout: timeoutMs } })
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', accept: 'application/json' }
  const call = async (method: 'GET' | 'POST', path: string, body?: object): Promise<{ status: number, body: unknown }> => {
    try {
      const response = await pool.request({ method, path, headers, body: body === undefined ? null : JSON.stringify(body), signal: AbortSignal.timeout(timeoutMs) })
      return { status: response.statusCode, body: await response.body.json() }
    } catch (error) {
      throw new KeyServiceUnavailableError((error as Error).message, { cause: error })
    }
  }
  return {
    async verify (digest) {
      const { status, body } = await call('POST', '/v1/verifications', { digest })
      if (status !== 200) throw new KeyServiceUnavailableError(`status ${status}`)
      if (!outcome.Check(body)) throw new KeyServiceUnavailableError('its answer has an unknown shape')
      return body as VerificationOutcome
    },
    async changes (after) {
      const { status, body } = await call('GET', `/v1/changes${after === undefined ? '' : `?after=${after}`}`)
      if (status === 410) return 'gone'
      if (status !== 200) throw new KeyServiceUnavailableError(`status ${status}`)
      if (!changesPage.Check(body)) throw new KeyServiceUnavailableError('its answer has an unknown shape')
      return body
    },
    close: async () => { await pool.destroy() }
  }
}
