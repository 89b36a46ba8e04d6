import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Settings } from '../lib/types.ts'

/** What a system can get wrong. */
export interface Defects {
  /** Each gateway counts for itself: seed 001's containers. */
  countsApart?: boolean
  /** A 429 without `Retry-After`. */
  noRetryAfter?: boolean
  /** `Retry-After` is a second short. */
  shortRetryAfter?: boolean
  /** A deleted key goes on. */
  keepsDeletedKeys?: boolean
  /** A gateway that is down. */
  secondIsDown?: boolean
}

interface Held { limit: number, windowSeconds: number, admittedAt: Map<string, number[]>, deleted: boolean }

/**
 * A toy of the whole system in one server, with its own clock: it exists to be broken, so that a scenario can show what it notices.
 * Whether the real system holds is told by the run against the real stack.
 */
export async function startStandIn (defects: Defects = {}): Promise<{ settings: Settings, advance: (seconds: number) => void, close: () => void }> {
  const keys = new Map<string, Held>()
  let now = 0
  const server = createServer((request, response) => { answer(request, response, keys, now, defects).catch(error => { response.destroy(error) }) })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    settings: { keyService: `${origin}/keys`, gateways: [`${origin}/1`, `${origin}/2`], projectId: 'p', operatorToken: 'o', example: '/example' },
    advance: seconds => { now += seconds },
    close: () => { server.close(); server.closeAllConnections() }
  }
}

async function answer (request: IncomingMessage, response: ServerResponse, keys: Map<string, Held>, now: number, defects: Defects): Promise<void> {
  const [, room = ''] = (request.url ?? '').split('/')
  if (room !== 'keys') return judge(request, response, keys, now, room, defects)
  if (request.headers.authorization !== 'Bearer o') return finish(response, 401)
  if (request.method === 'DELETE') {
    const held = keys.get((request.url ?? '').split('/').at(-1) ?? '')
    if (held !== undefined) held.deleted = defects.keepsDeletedKeys !== true
    return finish(response, held === undefined ? 404 : 204)
  }
  const { policies: [policy] } = JSON.parse(Buffer.concat(await request.toArray()).toString())
  const id = `k${keys.size}`
  keys.set(id, { ...policy, admittedAt: new Map(), deleted: false })
  finish(response, 201, {}, { id, secret: id })
}

function judge (request: IncomingMessage, response: ServerResponse, keys: Map<string, Held>, now: number, gateway: string, defects: Defects): void {
  if (defects.secondIsDown === true && gateway === '2') return finish(response, 503)
  const held = keys.get(secretOf(request))
  if (held === undefined || held.deleted) return finish(response, 401, { 'www-authenticate': 'Basic realm="toy", charset="UTF-8"' })
  const counter = defects.countsApart === true ? gateway : 'shared'
  const log = (held.admittedAt.get(counter) ?? []).filter(at => now - at < held.windowSeconds)
  const admitted = log.length < held.limit
  if (admitted) log.push(now)
  held.admittedAt.set(counter, log)
  const reset = (log[0] ?? now) + held.windowSeconds - now
  const told = { 'ratelimit-policy': `${held.limit};w=${held.windowSeconds}`, ratelimit: `limit=${held.limit}, remaining=${held.limit - log.length}, reset=${reset}` }
  if (admitted) return finish(response, 200, told)
  const retryAfter = defects.shortRetryAfter === true ? reset - 1 : reset
  finish(response, 429, { ...told, ...defects.noRetryAfter !== true && { 'retry-after': String(retryAfter) }, 'content-type': 'application/problem+json' })
}

function secretOf ({ headers }: IncomingMessage): string {
  const [, encoded = ''] = (headers.authorization ?? '').split('Basic ')
  return String(headers['x-api-key'] ?? Buffer.from(encoded, 'base64').toString().split(':')[1])
}

function finish (response: ServerResponse, status: number, headers: Record<string, string> = {}, body?: object): void {
  response.writeHead(status, headers).end(body === undefined ? undefined : JSON.stringify(body))
}
