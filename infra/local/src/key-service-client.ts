import { LocalError, messageOf } from './local-error.ts'

export interface KeyServiceClient {
  /** The answer's status and JSON body (`undefined` when it has none). Throws `LocalError` only when there is no answer. */
  call: (method: string, path: string, body?: unknown) => Promise<{ status: number, body: unknown }>
  /** As `call`, but an answer other than 2xx is a `LocalError` too. */
  send: <T>(method: string, path: string, body?: unknown) => Promise<T>
}

/** Calls key-service's management API with a service token. */
export function createKeyServiceClient (url: string, token: string): KeyServiceClient {
  const call: KeyServiceClient['call'] = async (method, path, body) => {
    // Who edits from here has read nothing before that it could overwrite in ignorance.
    const headers = { authorization: `Bearer ${token}`, ...(method === 'PATCH' && { 'if-match': '*' }), ...(body !== undefined && { 'content-type': 'application/json' }) }
    let response
    try {
      response = await fetch(url + path, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) })
    } catch (error) {
      throw new LocalError(`key-service at ${url} does not answer (${messageOf((error as Error).cause ?? error)}).`)
    }
    const text = await response.text()
    return { status: response.status, body: text === '' ? undefined : JSON.parse(text) as unknown }
  }
  return {
    call,
    send: async <T>(method: string, path: string, body?: unknown) => {
      const answer = await call(method, path, body)
      if (answer.status >= 300) throw new LocalError(`key-service answered ${method} ${path} with ${answer.status}: ${problemText(answer.body)}`)
      return answer.body as T
    }
  }
}

function problemText (body: unknown): string {
  const { title, detail } = (body ?? {}) as { title?: string, detail?: string }
  return detail ?? title ?? JSON.stringify(body)
}
