import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { startTcpProxy, type TcpProxy } from '@keygate/local'
import { UsageBatch, usageField, usageStream } from '@keygate/contracts'
import { Redis } from 'ioredis'
import { Compile } from 'typebox/compile'
import { openGatewayHouse, type GatewayHouse } from './house.ts'

const validBatch = Compile(UsageBatch)

export interface UsageHouse extends GatewayHouse {
  redis: Redis
  toRedis: TcpProxy
  redisUrlByProxy: string
  /** Answers of the upstream that it holds back: those that were asked for with `?held`. */
  held: ServerResponse[]
  /** How many requests have reached the upstream. */
  hits: () => number
  /** All batches in the stream, of one boot or of all; one that was sent twice is there once. @throws {Error} at an entry that is none. */
  batches: (bootId?: string) => Promise<UsageBatch[]>
  /** Waits for the hello of the gateway that `start` starts, and tells its boot. */
  bootOf: <T extends { url: string }>(start: Promise<T>) => Promise<T & { bootId: string }>
}

/** The upstream answers as the query says: `?status=404`, `?held`. The catalogue has it as `/forms`, and `/dead`, which refuses. key-service takes nothing from the stream, so that all of it can be read. */
export async function openUsageHouse (env: Record<string, string> = {}): Promise<UsageHouse> {
  const held: ServerResponse[] = []
  let hits = 0
  const api = createServer((request, response) => {
    hits++
    const query = new URL(request.url ?? '', 'http://api').searchParams
    if (query.has('held')) { held.push(response); return }
    request.resume().on('end', () => { response.writeHead(Number(query.get('status') ?? 200)).end('plain') })
  })
  api.keepAliveTimeout = 0
  await new Promise<void>(resolve => { api.listen(0, '127.0.0.1', resolve) })
  const upstream = `http://127.0.0.1:${(api.address() as AddressInfo).port}`
  const house = await openGatewayHouse((_, dead) => 'apis:' + ['forms', 'dead'].map(name => `
  - name: ${name}
    prefix: /${name}
    upstream: ${name === 'dead' ? dead : upstream}
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    optInScopes: [files]
    policies: [{ name: default, limit: 100000, window: 60s }]`).join(''), { KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_REDIS_TIMEOUT_MS: '5000', KEYGATE_USAGE_FLUSH_MS: '50', ...env })
  const redis = new Redis(house.stack.redisUrl)
  const toRedis = await startTcpProxy(Number(new URL(house.stack.redisUrl).port))
  await keepFromKeyService(redis)
  const read = async (bootId?: string): Promise<UsageBatch[]> => {
    const seen = new Map<string, UsageBatch>()
    for (const [id, fields] of await redis.xrange(usageStream, '-', '+')) {
      const batch: unknown = JSON.parse(fields[1] ?? '')
      if (fields[0] !== usageField || !validBatch.Check(batch)) throw new Error(`entry ${id} is no batch: ${fields[1] ?? ''}`)
      if (bootId === undefined || batch.bootId === bootId) seen.set(`${batch.bootId} ${batch.seq}`, batch)
    }
    return [...seen.values()]
  }
  return {
    ...house,
    redis,
    toRedis,
    redisUrlByProxy: `redis://127.0.0.1:${toRedis.port}`,
    held,
    hits: () => hits,
    batches: read,
    bootOf: async start => {
      const gateway = await start
      const end = `:${new URL(gateway.url).port}`
      return await until(`the hello of ${gateway.url}`, async () => {
        const hello = (await read()).findLast(({ seq, replica }) => seq === 0 && replica.endsWith(end))
        return hello !== undefined && { ...gateway, bootId: hello.bootId }
      })
    },
    stop: async () => {
      for (const response of held) response.destroy()
      redis.disconnect()
      await house.stop()
      await toRedis.stop()
      api.close()
      api.closeAllConnections()
    }
  }
}

/** Its consumer group is told that it has read everything, for ever. */
export async function keepFromKeyService (redis: Redis): Promise<void> {
  const never = '99999999999999-0'
  await redis.xgroup('CREATE', usageStream, 'key-service', never, 'MKSTREAM').catch(async () => { await redis.xgroup('SETID', usageStream, 'key-service', never) })
}

export type Sum = UsageBatch['keys'][number]['sums'][number]

/** The sums of a key in all batches, by operation, scope and minute. */
export function sumsOf (batches: UsageBatch[], keyId: string): Sum[] {
  const sums = new Map<string, Sum>()
  for (const { keys } of batches) {
    for (const key of keys) {
      if (key.keyId !== keyId) continue
      for (const sum of key.sums) {
        const name = [sum.api, sum.operation, sum.scope, sum.minute].join(' ')
        const found = sums.get(name)
        if (found === undefined) sums.set(name, { ...sum })
        else for (const count of ['admitted', 'limited', 'refused', 'upstreamErrors', 'admittedLocally'] as const) found[count] += sum[count]
      }
    }
  }
  return [...sums.values()]
}

export interface Totals { admitted: number, limited: number, refused: number, upstreamErrors: number, admittedLocally: number }

export function totalsOf (batches: UsageBatch[], keyId?: string): Totals {
  const totals = { admitted: 0, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }
  const keys = new Set(keyId === undefined ? batches.flatMap(batch => batch.keys.map(key => key.keyId)) : [keyId])
  for (const key of keys) for (const sum of sumsOf(batches, key)) for (const count of Object.keys(totals) as Array<keyof Totals>) totals[count] += sum[count]
  return totals
}

export const bookedOf = ({ admitted, limited, refused }: Totals): number => admitted + limited + refused

/** Asks until it holds; the deadline is for a broken test. */
export async function until<T> (what: string, ask: () => Promise<T | false>): Promise<T> {
  for (const end = Date.now() + 60_000; Date.now() < end; await delay(20)) {
    const found = await ask()
    if (found !== false) return found
  }
  throw new Error(`waited in vain: ${what}`)
}
