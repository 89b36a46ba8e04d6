import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startRedis, startStack, type Stack } from '@keygate/local'
import { startSystem } from './program.ts'
import { connections } from './systems/serve.ts'
import type { Request } from './load.ts'

export const ids = ['upstream', 'f', 'a', 'b', 'c', 'd', 'e', 'eoff', 'e200', 'auth', 'latency', 'two'] as const
export type Id = typeof ids[number]

/** Something that takes load. */
export interface Target {
  id: string
  label: string
  urls: string[]
  requests: Request[]
  /** The status that every answer must have. */
  expect: number
  /** Whether its answers must show that a limit was counted. */
  isLimited: boolean
  /** The processes whose CPU time counts. */
  pids: number[]
}

export interface Stage {
  targets: Record<'upstream' | 'f' | 'a' | 'b' | 'c' | 'd' | 'e' | 'eoff' | 'e200' | 'auth' | 'two', Target | undefined>
  redisPid: number
  /** Ends all in order. */
  stop: () => Promise<void>
}

/** What stands before the upstream, each in a process of its own; `ours` is @keygate/gateway with all that it needs. */
const systems = {
  f: { file: 'node-undici', label: '(f) node:http + undici, no proxy\'s duties' },
  a: { file: 'reply-from', label: '(a) @fastify/reply-from' },
  b: { file: 'http-proxy', label: '(b) @fastify/http-proxy' },
  c: { file: 'fastify-rate-limit', label: '(c) fastify, rate-limit on Redis, http-proxy' },
  d: { file: 'express', label: '(d) express, rate-limit on Redis, proxy' }
} as const

/**
 * The forms document of the local run before the bench's upstream. A window of one second keeps the log of a key short, and the limit
 * is the highest that a sliding window takes: nothing is refused, everything is counted.
 */
const apis = (upstream: string): string => `
apis:
  - name: forms
    prefix: /app/api/v1
    publicUrl: http://127.0.0.1:8080/app/api/v1
    upstream: ${upstream}/app/api/v1
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    optInScopes: [files]
    unlisted: deny
    otherSchemes: refuse
    policies: [{ name: default, limit: 100000, window: 1s }]
    operations:
      exportSubmissions: { policies: [{ name: export, limit: 5, window: 60s }] }
`

/** Keys that share the load of (e200): so many projects with so many keys each. */
const spread = { projects: 10, keys: 20 }

export interface StageOptions {
  wanted: (id: Id) => boolean
  /** Where CPU profiles go; undefined: none are made. */
  profiles: string | undefined
  progress: (phase: string) => void
  signal: AbortSignal
}

/** Starts what is needed for the wanted parts, and no more. Rejects when one does not start; the others are ended then. */
export async function openStage (options: StageOptions): Promise<Stage> {
  const ends: Array<() => Promise<unknown>> = []
  const stop = async (): Promise<void> => { for (const end of ends.splice(0).reverse()) await end() }
  try {
    return { ...await open(options, ends), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function open ({ wanted, profiles, progress, signal }: StageOptions, ends: Array<() => Promise<unknown>>): Promise<Omit<Stage, 'stop'>> {
  const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-gateway-bench-'))
  ends.push(async () => { rmSync(dir, { recursive: true, force: true }) })
  const nodeArgs = (name: string): string[] => {
    if (profiles === undefined) return []
    mkdirSync(join(profiles, name), { recursive: true })
    return ['--cpu-prof', `--cpu-prof-dir=${join(profiles, name)}`]
  }

  progress('starting Redis and the upstream')
  const redis = await startRedis()
  ends.push(redis.stop)
  const upstream = await startSystem('upstream', {})
  ends.push(upstream.stop)

  const needsOurs = (['e', 'eoff', 'e200', 'auth', 'latency', 'two'] as const).some(wanted)
  const count = wanted('two') ? 2 : 1
  const gateways = wanted('eoff') ? count + 1 : count // the last one records no usage
  const ours = needsOurs ? await startOurs() : undefined

  async function startOurs (): Promise<Ours> {
    progress(`starting PostgreSQL, key-service, ${gateways} of our gateways`)
    const stack = await startStack({
      dir,
      ephemeral: true,
      signal,
      gateways,
      logLevel: 'warn', // a line per request is the only thing of (e) that is left out: the others log nothing at all
      redisUrl: redis.url,
      apis: apis(upstream.url),
      gatewayNodeArgs: index => nodeArgs(`e-gateway-${index + 1}`),
      env: {
        gateway: index => ({ KEYGATE_USAGE: String(index < count), NODE_ENV: 'production', KEYGATE_UPSTREAM_CONNECTIONS: String(connections * 2), KEYGATE_REDIS_TIMEOUT_MS: '5000', KEYGATE_VERIFY_TIMEOUT_MS: '5000' }),
        keyService: { NODE_ENV: 'production', KEYGATE_REQUESTS_LIMIT: '100000', KEYGATE_REDIS_TIMEOUT_MS: '5000' }
      }
    })
    ends.push(stack.stop)
    const { projects, keys } = wanted('e200') ? spread : { projects: 1, keys: 1 }
    progress(`making ${projects * keys} keys`)
    return { stack, requests: await makeKeys(stack, projects, keys) }
  }

  // All get the same request: those that know no keys forward it as it is.
  const one = ours?.requests.slice(0, 1) ?? [{ path: '/app/api/v1/forms/5f0c7127-3be9-4488-b801-c7b6415b45e9', headers: { authorization: `Basic ${Buffer.from(`5f0c7127-3be9-4488-b801-c7b6415b45e9:${'k'.repeat(49)}`).toString('base64')}` } }]

  const theirs = async (id: keyof typeof systems): Promise<Target | undefined> => {
    if (!wanted(id) && !(id === 'a' && wanted('latency'))) return undefined
    const { file, label } = systems[id]
    const { url, pid, stop } = await startSystem(file, { UPSTREAM_URL: upstream.url, REDIS_URL: redis.url }, nodeArgs(id))
    ends.push(stop)
    return { id, label, urls: [url], requests: one, expect: 200, isLimited: id === 'c' || id === 'd', pids: [pid] }
  }
  progress('starting the other systems')
  const [f, a, b, c, d] = [await theirs('f'), await theirs('a'), await theirs('b'), await theirs('c'), await theirs('d')]

  const own = (id: string, label: string, { requests = one, from = 0, to = 1, expect = 200 }: { requests?: Request[], from?: number, to?: number, expect?: number } = {}): Target | undefined => {
    const processes = ours?.stack.gateways.slice(from, to)
    return processes && { id, label, urls: processes.map(({ url }) => url), requests, expect, isLimited: true, pids: processes.map(({ pid }) => pid) }
  }
  return {
    redisPid: redis.pid,
    targets: {
      upstream: { id: 'upstream', label: 'the upstream alone', urls: [upstream.url], requests: one, expect: 200, isLimited: false, pids: [upstream.pid] },
      f,
      a,
      b,
      c,
      d,
      e: own('e', '(e) ours, one key'),
      eoff: wanted('eoff') ? own('eoff', '(e) without usage', { from: count, to: count + 1 }) : undefined,
      e200: own('e200', `(e') ours, ${spread.projects * spread.keys} keys in turn`, { ...ours && { requests: ours.requests } }),
      auth: own('auth', 'forward-auth, one key', { requests: one.map(toAuthorize), expect: 204 }),
      two: own('two', 'two gateways', { to: 2 })
    }
  }
}

interface Ours { stack: Stack, requests: Request[] }

/** As nginx's `auth_request` asks. */
function toAuthorize ({ path, headers }: Request): Request {
  return { path: '/.keygate/authorize', headers: { ...headers, 'x-original-method': 'GET', 'x-original-uri': path } }
}

/** Keys that go on by the catalogue's own policies; one request of each, those of one project not side by side. */
async function makeKeys ({ keyService, tokens }: Stack, projectCount: number, keysOfEach: number): Promise<Request[]> {
  const post = async <T>(path: string, body: unknown): Promise<T> => {
    const answer = await fetch(`${keyService.url}${path}`, { method: 'POST', headers: { authorization: `Bearer ${tokens.operator}`, 'content-type': 'application/json' }, body: JSON.stringify(body) })
    const text = await answer.text()
    if (answer.status !== 201) throw new Error(`key-service answered POST ${path} with ${answer.status}: ${text}`)
    return JSON.parse(text) as T
  }
  const projects: string[] = []
  for (let i = 0; i < projectCount; i++) projects.push((await post<{ id: string }>('/v1/projects', { name: `Bench ${i}` })).id)
  const requests: Request[] = []
  for (let i = 0; i < keysOfEach; i++) {
    for (const project of projects) {
      const { secret } = await post<{ secret: string }>(`/v1/projects/${project}/keys`, { name: `Bench ${i}`, scopes: ['forms'] })
      requests.push({ path: `/app/api/v1/forms/${project}`, headers: { authorization: `Basic ${Buffer.from(`${project}:${secret}`).toString('base64')}` } })
    }
  }
  return requests
}
