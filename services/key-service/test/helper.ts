import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { generateSecret } from '@keygate/api-key'
import { startPostgres, startRedis, type Postgres, type Redis } from '@keygate/local'
import type { FastifyInstance, LightMyRequestResponse } from 'fastify'
import postgres from 'postgres'
import type { Test } from 'tap'
import { buildApp } from '../src/app.ts'
import type { Config } from '../src/config.ts'
import { openParts, type Parts } from '../src/parts.ts'
import { permissions } from '../src/access/permissions.ts'

export type Sql = postgres.Sql

/** Real servers for one test file, and databases in them that belong to a role without special rights. */
export interface House {
  postgres: Postgres
  redis: Redis
  /** The superuser's own connection. */
  admin: Sql
  /** A new, empty database; the URL is the service's. */
  database: () => Promise<string>
}

export async function startHouse (t: Test): Promise<House> {
  const dir = mkdtempSync(join(tmpdir(), 'keygate-key-service-'))
  const [server, redis] = await Promise.all([startPostgres(join(dir, 'postgres'), { ephemeral: true }), startRedis()])
  const admin = postgres(server.url, { onnotice: () => {} })
  await admin`CREATE ROLE keygate LOGIN`
  let count = 0
  t.teardown(async () => {
    await admin.end({ timeout: 1 })
    await Promise.all([server.stop(), redis.stop()])
    rmSync(dir, { recursive: true, force: true })
  })
  return {
    postgres: server,
    redis,
    admin,
    database: async () => {
      const name = `keys_${++count}`
      await admin`CREATE DATABASE ${admin(name)} OWNER keygate`
      return `postgres://keygate@127.0.0.1:${server.port}/${name}`
    }
  }
}

/** One token per caller that tests need; `all` has every permission. */
export const tokens = { all: generateSecret('kgs'), verify: generateSecret('kgs'), reader: generateSecret('kgs'), bound: generateSecret('kgs') }
export const boundProject = '0b1d2c3e-4f50-4a61-8b72-9c83ad94be05'

export function tokensFile (t: Test, entries: object[] = [
  { name: 'all', token: tokens.all, permissions },
  { name: 'verify', token: tokens.verify, permissions: ['keys:verify'] },
  { name: 'reader', token: tokens.reader, permissions: ['projects:read', 'keys:read'] },
  { name: 'bound', token: tokens.bound, permissions, projectId: boundProject }
]): string {
  const dir = mkdtempSync(join(tmpdir(), 'keygate-tokens-'))
  t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
  const file = join(dir, 'tokens.json')
  writeFileSync(file, JSON.stringify(entries))
  return file
}

export function configFor (t: Test, databaseUrl: string, redisUrl: string, overrides: Partial<Config> = {}): Config {
  return {
    host: '127.0.0.1',
    port: 0,
    metricsPort: undefined,
    databaseUrl,
    redisUrl,
    apisFile: fileURLToPath(new URL('fixtures/apis.yaml', import.meta.url)),
    publicUrl: undefined,
    trustProxy: [],
    peppers: { current: { id: '1', value: 'a pepper for tests of 32 characters or more' }, previous: [] },
    encryptionKeys: { current: { id: '1', value: Buffer.alloc(32, 'an encryption key for tests') }, previous: [] },
    importForms: [],
    operatorEmail: 'operator@localhost',
    sessionIdleMs: 3_600_000,
    sessionMs: 12 * 3_600_000,
    requestsLimit: 100_000, // tests of the limit set their own
    serviceTokensFile: tokensFile(t),
    keyPrefix: 'kg',
    keyMaxDays: undefined,
    // Longer than any test: what a test sees delivered was delivered by the change itself, by a reconnect, or because it asked.
    relayIntervalMs: 60_000,
    redisTimeoutMs: 1000,
    databaseTimeoutMs: 20_000, // tests of it set their own
    usageIntervalMs: 20,
    usageLateMs: 30_000,
    usageSilentMs: 120_000,
    logRetentionDays: undefined,
    logLevel: 'silent',
    ...overrides
  }
}

export interface Answer { status: number, headers: LightMyRequestResponse['headers'], body: any, text: string }
export type Call = (method: string, path: string, body?: unknown, token?: string, headers?: Record<string, string>) => Promise<Answer>

/** `printed` is what only whoever starts the service may see: the first operator's link. */
export interface TestApp { app: FastifyInstance, parts: Parts, call: Call, metrics: () => Promise<string>, printed: string }

export async function startApp (t: Test, config: Config): Promise<TestApp> {
  let parts: Parts | undefined
  let printed = ''
  const { app, registry } = await buildApp(config, async log => { parts = await openParts(config, log, text => { printed += text }); return parts })
  t.teardown(async () => { await app.close() })
  await app.ready()
  return { app, parts: parts as Parts, call: caller(app), metrics: async () => await registry.metrics(), printed }
}

/** Calls `/v1` + path with a token and a JSON body. A PATCH is made on whatever version there is, unless `headers` say otherwise. */
function caller (app: FastifyInstance): Call {
  return async (method, path, body, token = tokens.all, headers = method === 'PATCH' ? { 'if-match': '*' } : {}) => {
    const response = await app.inject({
      method: method as 'GET',
      url: `/v1${path}`,
      headers: { authorization: `Bearer ${token}`, ...headers },
      ...body === undefined ? {} : { payload: body as object }
    })
    const text = response.body
    return { status: response.statusCode, headers: response.headers, text, body: jsonOf(response) }
  }
}

/** The body, if it is one JSON value: files that are downloaded are none. */
export function jsonOf ({ headers, body }: Pick<LightMyRequestResponse, 'headers' | 'body'>): any {
  return body !== '' && /^application\/([\w.-]+\+)?json\b/.test(String(headers['content-type'])) ? JSON.parse(body) : undefined
}

/** Until Redis has answered its handshake; a change before that is `pending`, which is another test. */
export async function redisIsReady ({ parts }: TestApp): Promise<void> {
  if (!parts.redis.isReady) await new Promise<void>(resolve => { parts.redis.once('ready', resolve) })
}
