import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import postgres, { type Sql } from 'postgres'
import type { Test } from 'tap'
import { freePort, startRedis, startTcpProxy, type TcpProxy } from '../src/index.ts'
import { repoRoot } from '../src/root.ts'
import { openHouse, until, type House, type Key } from './house.ts'

export const maxmemory = 4 * 1024 * 1024
/** What gateways let the stream take of it: a thousand logged requests or so. */
export const capBytes = maxmemory / 8
/** After so long one key-service takes over what another has in hand. */
export const lateMs = 200

/** What is written down of the project. */
export interface Books { admitted: number, limited: number, refused: number, lost: number, waiting: number }

export interface UsageHouse extends House {
  store: Redis
  sql: Sql
  /** Of gateway 1. */
  gatewayToRedis: TcpProxy
  keyServiceToRedis: TcpProxy
  /** Of key-service. */
  toPostgres: { stop: () => Promise<void>, start: () => Promise<void> }
  /**
   * What this client has got in all. `left`: those of the admitted that it did not wait for, so nobody passed them on. `broken`: it cannot
   * know what became of them. A connection that was refused carried nothing.
   */
  got: { admitted: number, left: number, limited: number, refused: number, broken: number, others: number[] }
  /** How many requests reached the upstream. */
  arrived: () => number
  /** The next request that reaches the upstream waits there. Fulfils when it does, with what lets it be answered. */
  holdNext: () => Promise<() => void>
  send: (gateway: number, key: Key) => Promise<void>
  /** Requests at the same time, to both gateways in turn unless told otherwise. */
  sendMany: (count: number, key: Key, gateway?: (i: number) => number) => Promise<void>
  books: () => Promise<Books>
  /** The books when nothing waits any more and everything that the client got stands in them. */
  settled: (what: string) => Promise<Books>
  /** What the client got = what reached the upstream = what is stored + what is told as lost. Fulfils with the books. */
  balanced: (t: Test, what: string) => Promise<Books>
  /** `usage balance`, the command that weighs both sides. */
  weighed: () => Promise<{ code: number, out: string }>
  /** Checks that it finds nothing wrong. */
  weighsEven: (t: Test) => Promise<void>
}

/** The whole house with an upstream that counts. Gateway 1 and key-service reach their stores through proxies, which tell when a message leaves, and swallow it. */
export async function openUsageHouse (): Promise<UsageHouse> {
  let arrived = 0
  let hold: ((answer: ServerResponse) => void) | undefined
  const upstream = createServer((_, answer) => {
    arrived++
    answer.setHeader('content-type', 'application/json')
    if (hold === undefined) answer.end('{}')
    else hold(answer)
  }).listen(0, '127.0.0.1')
  await once(upstream, 'listening')
  const redis = await startRedis({ args: ['--maxmemory', String(maxmemory)] })
  const postgresPort = await freePort()
  const [gatewayToRedis, keyServiceToRedis] = [await startTcpProxy(redis.port), await startTcpProxy(redis.port)]
  let toPostgres = await startTcpProxy(postgresPort)
  const postgresByProxy = toPostgres.port
  const house = await openHouse({
    redisUrl: redis.url,
    ports: { postgres: postgresPort },
    apis: `
apis:
  - name: forms
    prefix: /app/api/v1
    upstream: http://127.0.0.1:${(upstream.address() as AddressInfo).port}/app/api/v1
    openapi: ./test/one-operation.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
`,
    env: {
      keyService: {
        REDIS_URL: `redis://127.0.0.1:${keyServiceToRedis.port}`,
        DATABASE_URL: `postgres://postgres@127.0.0.1:${postgresByProxy}/postgres`,
        KEYGATE_RELAY_INTERVAL_MS: '100',
        KEYGATE_USAGE_INTERVAL_MS: '20',
        KEYGATE_USAGE_LATE_MS: String(lateMs),
        KEYGATE_USAGE_SILENT_MS: '1000'
      },
      gateway: index => ({
        KEYGATE_REFUSALS_LIMIT: '100000',
        // Most bursts to the gateway that is killed stand in one batch of it.
        KEYGATE_USAGE_FLUSH_MS: index === 0 ? '200' : '50',
        ...index === 0 ? { REDIS_URL: `redis://127.0.0.1:${gatewayToRedis.port}` } : {}
      })
    }
  })
  const store = new Redis(redis.url)
  const sql = postgres(`postgres://postgres@127.0.0.1:${postgresPort}/postgres`, { max: 2, onnotice: () => {} })
  const got: UsageHouse['got'] = { admitted: 0, left: 0, limited: 0, refused: 0, broken: 0, others: [] }

  async function send (gateway: number, key: Key): Promise<void> {
    const status = await house.use(gateway, key.secret).then(({ status }) => status, (error: NodeJS.ErrnoException) => error.code === 'ECONNREFUSED' ? undefined : 0)
    if (status === undefined) return
    if (status === 0) got.broken++
    else if (status === 200) got.admitted++
    else if (status === 429) got.limited++
    else if (status === 403) got.refused++
    else got.others.push(status)
  }

  async function books (): Promise<Books> {
    const waiting = await store.xlen('kg:usage:0')
    const [sums] = await sql`SELECT coalesce(sum(admitted), 0)::int AS admitted, coalesce(sum(limited), 0)::int AS limited, coalesce(sum(refused), 0)::int AS refused FROM usage_minutes WHERE project_id = ${house.projectId} AND key_id = '*'`
    const [lines] = await sql`SELECT coalesce(sum(finished - stored + tail), 0)::int AS lost FROM usage_lines WHERE project_id = ${house.projectId}`
    return { ...sums, ...lines, waiting } as unknown as Books
  }

  async function settled (what: string): Promise<Books> {
    return await until(what, books, ({ admitted, lost, waiting }) => waiting === 0 && admitted + lost >= got.admitted)
  }

  async function balanced (t: Test, what: string): Promise<Books> {
    const found = await settled(what).catch(async (error: unknown) => {
      t.fail(`${what}: ${JSON.stringify({ got, arrived, books: await books() })}`)
      throw error
    })
    const counts = { ...got, arrived, stored: found.admitted, lost: found.lost }
    const passedOn = arrived + got.left
    t.ok(passedOn >= got.admitted && passedOn <= got.admitted + got.broken && found.admitted + found.lost <= got.admitted + got.broken, `${what}: ${JSON.stringify(counts)}`)
    t.strictSame(got.others, [], `${what}: nothing else was answered`)
    t.ok(found.limited <= got.limited && found.refused <= got.refused, `${what}: no refusal is counted twice`)
    return found
  }

  async function weighed (): Promise<{ code: number, out: string }> {
    const env = { PATH: process.env['PATH'], DATABASE_URL: house.stack.postgres.url, REDIS_URL: redis.url, KEYGATE_APIS: house.stack.apisFile, KEYGATE_PEPPER: 'a pepper for tests of 32 characters or more' }
    return await new Promise(resolve => {
      execFile(process.execPath, [join(repoRoot, 'services/key-service/dist/cli.js'), 'usage', 'balance', '--project', house.projectId], { env }, (error, out, err) => { resolve({ code: Number(error?.code ?? 0), out: out + err }) })
    })
  }

  return {
    ...house,
    store,
    sql,
    gatewayToRedis,
    keyServiceToRedis,
    toPostgres: {
      stop: async () => { await toPostgres.stop() },
      start: async () => { toPostgres = await startTcpProxy(postgresPort, { port: postgresByProxy }) }
    },
    got,
    arrived: () => arrived,
    holdNext: async () => await new Promise(resolve => {
      hold = answer => {
        hold = undefined
        resolve(() => { answer.end('{}') })
      }
    }),
    send,
    sendMany: async (count, key, gateway = i => i % 2) => { await Promise.all(Array.from({ length: count }, async (_, i) => { await send(gateway(i), key) })) },
    books,
    settled,
    balanced,
    weighed,
    weighsEven: async t => {
      const { code, out } = await weighed()
      t.match({ code, out }, { code: 0, out: /# \d+ lines, 0 unbalanced, 0 open, 0 with the left side incomplete, \d+ admissions lost\n$/ }, 'usage balance')
    },
    stop: async () => {
      store.disconnect()
      await sql.end({ timeout: 1 })
      await house.stop()
      await Promise.all([gatewayToRedis.stop(), keyServiceToRedis.stop(), toPostgres.stop(), redis.stop()])
      upstream.close()
      upstream.closeAllConnections()
    }
  }
}
