import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { digestSecret, generateSecret } from '@keygate/api-key'
import { allPermissions, serviceToken, startPostgres, startRedis, startService } from '@keygate/local'
import postgres from 'postgres'

const service = fileURLToPath(new URL('../../', import.meta.url))

/** `firstMs`: until the first piece of the body. `total`: how many lines the answer has said that it has; null: it has not. */
export interface ReadLines { lines: number, firstMs: number, total: number | null }

/** Servers of the bench's own, and one process of key-service. */
export interface House {
  /** The superuser, in the service's database. */
  admin: postgres.Sql
  /** As the service: without special rights. */
  databaseUrl: string
  /** Rejects when the status is not the wanted one. */
  call: <T>(method: string, path: string, body?: unknown, status?: number) => Promise<T>
  /** Adds keys by the seed's own program. Returns digests of up to 1000 secrets that work. */
  seed: (keys: number, projectId?: string) => Promise<string[]>
  /** Adds a project with usage by the seed's own program, whose progress is shown. Returns its id. */
  seedUsage: (keys: number, days: number) => Promise<string>
  /** Reads an answer of 200 as it comes and counts its lines. Stops after `most` of them. */
  readLines: (path: string, most: number) => Promise<ReadLines>
  /** From here on each statement's plan stands in the log. */
  explainAll: () => Promise<void>
  /** What PostgreSQL has logged during `work`. */
  logOf: (work: () => Promise<unknown>) => Promise<string>
  stop: () => Promise<void>
}

export async function startHouse (): Promise<House> {
  const dir = mkdtempSync(join(tmpdir(), 'keygate-key-bench-'))
  const logFile = join(dir, 'postgres.log')
  const [server, redis] = await Promise.all([startPostgres(join(dir, 'postgres'), { ephemeral: true, logFile }), startRedis()])
  const root = postgres(server.url, { onnotice: () => {}, max: 1 })
  await root`CREATE ROLE keygate LOGIN`
  await root`CREATE DATABASE keygate OWNER keygate`
  await root`CREATE SEQUENCE fences`
  const token = serviceToken()
  const tokensFile = join(dir, 'tokens.json')
  writeFileSync(tokensFile, JSON.stringify([{ name: 'bench', token, permissions: allPermissions }]), { mode: 0o600 })
  const databaseUrl = `postgres://keygate@127.0.0.1:${server.port}/keygate`
  const env = {
    DATABASE_URL: databaseUrl,
    REDIS_URL: redis.url,
    KEYGATE_APIS: join(service, 'test/fixtures/apis.yaml'),
    KEYGATE_PEPPER: generateSecret('kg') + generateSecret('kg'),
    KEYGATE_SERVICE_TOKENS_FILE: tokensFile,
    KEYGATE_REQUESTS_LIMIT: '100000',
    LOG_LEVEL: 'warn'
  }
  const keyService = await startService('key-service', env)
  const admin = postgres(`postgres://postgres@127.0.0.1:${server.port}/keygate`, { onnotice: () => {}, max: 1 })

  const call: House['call'] = async <T>(method: string, path: string, body?: unknown, status = 200) => {
    const answer = await fetch(`${keyService.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...body !== undefined && { 'content-type': 'application/json' } },
      ...body !== undefined && { body: JSON.stringify(body) }
    })
    const said = await answer.text()
    if (answer.status !== status) throw new Error(`${method} ${path}: ${answer.status} ${said}`)
    return JSON.parse(said) as T
  }

  /** @returns what it has printed. */
  async function runSeed (args: string[]): Promise<string> {
    const child = spawn(process.execPath, [join(service, 'dist/seed.js'), ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    const [[code], printed] = await Promise.all([once(child, 'close') as Promise<[number | null]>, text(child.stdout)])
    if (code !== 0) throw new Error(`the seed ended with ${code ?? 'a signal'}`)
    return printed
  }

  const readLines: House['readLines'] = async (path, most) => {
    const begun = performance.now()
    const ending = new AbortController()
    const answer = await fetch(`${keyService.url}${path}`, { headers: { authorization: `Bearer ${token}` }, signal: ending.signal })
    if (answer.status !== 200 || answer.body === null) throw new Error(`GET ${path}: ${answer.status} ${await answer.text()}`)
    const total = answer.headers.get('x-total-rows')
    let [lines, firstMs] = [0, NaN]
    for await (const chunk of answer.body) {
      if (Number.isNaN(firstMs)) firstMs = performance.now() - begun
      for (const byte of chunk) if (byte === 10) lines++
      if (lines >= most) break // which gives up the rest
    }
    ending.abort()
    return { lines, firstMs, total: total === null ? null : Number(total) }
  }

  let [seeds, fences] = [0, 0]
  const seed: House['seed'] = async (keys, projectId) => {
    const secretsFile = join(dir, `secrets-${++seeds}`)
    const args = ['--keys', String(keys), '--seed', String(seeds), '--secrets-file', secretsFile, ...projectId === undefined ? [] : ['--project', projectId]]
    await runSeed(args)
    return readFileSync(secretsFile, 'utf8').trim().split('\n').map(digestSecret)
  }

  return {
    admin,
    databaseUrl,
    call,
    seed,
    seedUsage: async (keys, days) => {
      const printed = await runSeed(['usage', '--keys', String(keys), '--days', String(days)])
      const projectId = /rows of usage in the project ([0-9a-f-]+)/.exec(printed)?.[1]
      if (projectId === undefined) throw new Error(`the seed has said ${JSON.stringify(printed)}`)
      console.log(printed.trim())
      return projectId
    },
    readLines,
    explainAll: async () => {
      const settings = { 'auto_explain.log_min_duration': '0', 'auto_explain.log_format': 'json', 'auto_explain.log_parameter_max_length': '0', session_preload_libraries: 'auto_explain' }
      for (const [name, value] of Object.entries(settings)) await root`ALTER DATABASE keygate SET ${root(name)} = ${root(value)}`
      // They hold for new sessions: the service's are ended, and it makes others.
      await root`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'keygate'`
      for (let attempt = 1; ; attempt++) {
        const isReady = await call('GET', '/v1/projects').then(() => true, () => false)
        if (isReady) return
        if (attempt === 50) throw new Error('key-service found no way back to its database')
        await delay(20)
      }
    },
    logOf: async work => {
      const fence = async (): Promise<number> => {
        const mark = `fence ${++fences};`
        await root`DO $$ BEGIN RAISE LOG 'fence %;', nextval('fences'); END $$`
        for (;;) {
          const at = readFileSync(logFile, 'utf8').indexOf(mark)
          if (at !== -1) return at
          await delay(5) // the log goes through a pipe of ours
        }
      }
      const from = await fence()
      await work()
      const to = await fence()
      return readFileSync(logFile, 'utf8').slice(from, to)
    },
    stop: async () => {
      await Promise.all([admin.end({ timeout: 1 }), root.end({ timeout: 1 })])
      await keyService.stop()
      await Promise.all([server.stop(), redis.stop()])
      rmSync(dir, { recursive: true, force: true })
    }
  }
}
