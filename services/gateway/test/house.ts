import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startStack, type Env, type Service, type ServiceOptions, type Stack } from '@keygate/local'
import { buildApp } from '../src/app.ts'
import { readConfig } from '../src/config.ts'
import { LiveCatalogue } from '../src/routing/live-catalogue.ts'
import { upstreamFaults } from '../src/routing/upstream-faults.ts'

export interface Answer { status: number, headers: Record<string, string | undefined>, body: string, problem: { code?: string, status?: number, errors?: object[] } }
export interface CallOptions { method?: string, path?: string, headers?: string[], body?: string }

const agent = new Agent({ keepAlive: true })

/** A busy machine is not a silent store or key-service, nor an overloaded gateway. */
const patientKeyService = { KEYGATE_REQUESTS_LIMIT: '100000', KEYGATE_DATABASE_TIMEOUT_MS: '20000', KEYGATE_REDIS_TIMEOUT_MS: '5000' }
const patient = { KEYGATE_VERIFY_TIMEOUT_MS: '20000', KEYGATE_MAX_EVENT_LOOP_DELAY_MS: '0' }

/** One HTTP call with headers as raw pairs, so that a test can send what a client library would mend. */
export async function call (base: string, { method = 'GET', path = '/', headers = [], body }: CallOptions): Promise<Answer> {
  const url = new URL(base)
  return await new Promise((resolve, reject) => {
    const sent = request({ agent, host: url.hostname, port: url.port, method, path, headers: ['host', url.host, ...headers] }, answer => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => { text += chunk }).on('error', reject).on('end', () => {
        const isProblem = answer.headers['content-type'] === 'application/problem+json'
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers as Answer['headers'], body: text, problem: isProblem && text !== '' ? JSON.parse(text) as Answer['problem'] : {} })
      })
    })
    sent.on('error', reject).end(body)
  })
}

export const basicOf = (userPass: string, scheme = 'Basic '): string[] => ['Authorization', scheme + Buffer.from(userPass).toString('base64')]

export interface Project { id: string, createKey: (settings?: object) => Promise<{ id: string, secret: string }>, change: (keyId: string, method: string, path: string, body?: object) => Promise<{ secret: string, status: string }> }

export interface Gateway {
  url: string
  /** The sum of a metric's samples. */
  metric: (name: string) => Promise<number>
}

export interface GatewayHouse {
  stack: Stack
  /** Two gateways of this process over the same Redis, with the clock of the script in `clock`. */
  gateways: string[]
  clock: { micros: number | undefined }
  /** The sum of a metric's samples over both gateways. */
  metric: (name: string) => Promise<number>
  createProject: () => Promise<Project>
  /** One more gateway in this process, with other variables. It ends with the house. */
  openGateway: (env: Record<string, string>) => Promise<Gateway>
  /** One more gateway as a process of its own, from the build: for signals, memory and exit codes. It ends with the house. */
  startGateway: (env?: Env, options?: ServiceOptions) => Promise<Service>
  stop: () => Promise<void>
}

/**
 * PostgreSQL, Redis, key-service and upstream as processes, and two gateways in this process: the only way to give the script its
 * time. `apis` is a catalogue in which `{upstream}` stands for the upstream's address and `{dead}` for one that refuses.
 */
export async function openGatewayHouse (apis: (upstream: string, dead: string) => string, env: Record<string, string> = {}): Promise<GatewayHouse> {
  const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-gateway-'))
  const stack = await startStack({ dir, ephemeral: true, gateways: 0, env: { keyService: patientKeyService }, apis: apis('http://127.0.0.1:4000', await deadAddress()) })
  const clock: GatewayHouse['clock'] = { micros: undefined }
  const open: Array<{ close: () => Promise<void> }> = []
  const openGateway = async (more: Record<string, string>): Promise<Gateway> => {
    const { config } = readConfig({
      KEYGATE_APIS: stack.apisFile,
      KEYGATE_KEY_SERVICE_URL: stack.keyService.url,
      KEYGATE_SERVICE_TOKEN: stack.tokens.gateway,
      REDIS_URL: stack.redisUrl,
      LOG_LEVEL: 'silent',
      KEYGATE_UPSTREAM_TIMEOUT_MS: '1000',
      KEYGATE_ALLOW_PRIVATE_UPSTREAM: 'true',
      ...patient,
      ...env,
      ...more
    })
    const { app, registry } = await buildApp({ config, live: await LiveCatalogue.open({ file: stack.apisFile, check: upstreamFaults(config) }), nowMicros: () => clock.micros ?? Date.now() * 1000 })
    open.push({ close: async () => { await app.close() } })
    return {
      url: await app.listen({ port: 0, host: '127.0.0.1' }),
      metric: async name => ((await registry.getSingleMetric(name)?.get())?.values ?? []).reduce((sum, { value }) => sum + value, 0)
    }
  }
  const gateways = [await openGateway({}), await openGateway({})]
  const admin = async <T>(method: string, path: string, body?: object): Promise<T> => {
    const answer = await fetch(stack.keyService.url + path, { method, headers: { authorization: `Bearer ${stack.tokens.operator}`, ...(method === 'PATCH' && { 'if-match': '*' }), ...(body === undefined ? {} : { 'content-type': 'application/json' }) }, body: body === undefined ? null : JSON.stringify(body) })
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    return (answer.status === 204 ? undefined : await answer.json()) as T
  }
  return {
    stack,
    gateways: gateways.map(({ url }) => url),
    clock,
    metric: async name => (await Promise.all(gateways.map(async ({ metric }) => await metric(name)))).reduce((sum, value) => sum + value, 0),
    openGateway,
    startGateway: async (more, options) => await stack.startGateway(0, { ...patient, KEYGATE_REDIS_TIMEOUT_MS: '5000', ...env, KEYGATE_PORT: '0', ...more }, options),
    createProject: async () => {
      const { id } = await admin<{ id: string }>('POST', '/v1/projects', { name: 'Project' })
      return {
        id,
        createKey: async settings => await admin('POST', `/v1/projects/${id}/keys`, { name: 'k', allowedForAll: true, ...settings }),
        change: async (keyId, method, path, body) => await admin(method, `/v1/projects/${id}/keys/${keyId}${path}`, body)
      }
    },
    stop: async () => {
      agent.destroy()
      await Promise.all(open.map(async ({ close }) => { await close() }))
      await stack.stop()
      rmSync(dir, { recursive: true, force: true })
    }
  }
}

async function deadAddress (): Promise<string> {
  const server = createServer()
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => { server.close(resolve) })
  return `http://127.0.0.1:${port}`
}
