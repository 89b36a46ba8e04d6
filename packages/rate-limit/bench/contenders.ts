import { createRequire } from 'node:module'
import { RedisStore, logKey, raiseVersions, type LimitedBy, type Policy, type RedisConnection } from '@keygate/rate-limit'
import { textbook, type TextbookScript } from './textbook.ts'

export interface Ask { keyId: string, limit: number, windowSeconds: number, cost?: number }

/** A limiter over the one Redis of the run. */
export interface Contender {
  name: string
  /** Whether it can be given a time; else it is tried in real time. */
  takesTime: boolean
  /** Fulfils with whether the request is admitted. */
  decide: (ask: Ask, nowMicros?: number) => Promise<boolean>
  /** What a subject's keys in Redis begin with, for a look at their memory. */
  keys: (ask: Ask) => string
}

const project = 'bench'

function limitsOf ({ keyId, limit, windowSeconds }: Ask): LimitedBy[] {
  const policy: Policy = { name: 'default', limit, windowSeconds, algorithm: 'sliding', partition: 'key' }
  return [{ policy, log: logKey(project, { kind: 'key' }, { kind: 'key', keyId }, policy) }]
}

/** Ours; with versions it does the whole work of admission, of which the others know nothing. */
function ours (connection: RedisConnection, withVersions: boolean): Contender {
  let now: number | '' = ''
  const store = new RedisStore(connection)
  const timed = new RedisStore(connection, { nowMicros: () => now as number })
  return {
    name: withVersions ? 'ours, with versions' : 'ours',
    takesTime: true,
    keys: ask => limitsOf(ask)[0]?.log ?? '',
    decide: async (ask, nowMicros) => {
      now = nowMicros ?? ''
      const versions = withVersions ? { projectId: project, keyId: ask.keyId, keyVersion: 1, projectVersion: 1, bootId: 'bench-gateway-1', generation: connection.generation } : undefined
      const outcome = await (nowMicros === undefined ? store : timed).decide({ cost: ask.cost ?? 1, limits: limitsOf(ask), versions })
      if (outcome.outcome !== 'admitted' && outcome.outcome !== 'limited') throw new Error(`not decided: ${outcome.outcome}`)
      return outcome.outcome === 'admitted'
    }
  }
}

function byTheBook (connection: RedisConnection, name: string, { text, sha }: TextbookScript): Contender {
  const { client } = connection
  const subject = ({ keyId }: Ask): string => `kg:{bench}:${name}:key=${keyId}:default`
  return {
    name: `textbook ${name}`,
    takesTime: true,
    keys: subject,
    decide: async (ask, nowMicros) => {
      const args = [1, subject(ask), ask.windowSeconds * 1e6, ask.limit, nowMicros ?? ''] as const
      const reply = await client.evalsha(sha, ...args).catch(async () => await client.eval(text, ...args)) as [number]
      return reply[0] === 1
    }
  }
}

/** The plugin's own store, as the plugin calls it. It is not exported for typed use. */
function fastify ({ client }: RedisConnection): Contender {
  type Counted = { current: number, ttl: number }
  type Store = new (continueExceeding: boolean, exponentialBackoff: boolean, redis: unknown, prefix: string) => {
    incr: (key: string, done: (error: Error | null, counted: Counted) => void, timeWindow: number, max: number) => void
  }
  const FastifyRedisStore = createRequire(import.meta.url)('@fastify/rate-limit/store/RedisStore.js') as Store
  const prefix = 'kg:{bench}:fastify-rate-limit-'
  const store = new FastifyRedisStore(false, false, client, prefix)
  return {
    name: '@fastify/rate-limit',
    takesTime: false,
    keys: ({ keyId }) => prefix + keyId,
    decide: async ({ keyId, limit, windowSeconds }) => await new Promise((resolve, reject) => {
      store.incr(keyId, (error, counted) => { if (error === null) resolve(counted.current <= limit); else reject(error) }, windowSeconds * 1000, limit)
    })
  }
}

export function contenders (connection: RedisConnection): Contender[] {
  return [
    ours(connection, false), ours(connection, true), fastify(connection),
    ...Object.entries(textbook).map(([name, script]) => byTheBook(connection, name, script))
  ]
}

/** Makes keys known, for the contender that confirms versions. */
export async function makeKnown (connection: RedisConnection, keyIds: string[]): Promise<void> {
  await raiseVersions(connection, project, Object.fromEntries(['*', ...keyIds].map(field => [field, 1])))
}
