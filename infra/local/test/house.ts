import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { startStack, type Stack, type StackOptions } from '../src/index.ts'
import { createKeyServiceClient } from '../src/key-service-client.ts'

export interface Answer { status: number, headers: Record<string, string | string[] | undefined>, body: string }
export interface CallOptions { method?: string, path?: string, headers?: string[], from?: string }
export interface Key { id: string, secret: string, effective: string, version: number }

const agent = new Agent({ keepAlive: true, maxSockets: 256 })

/** One HTTP call with headers as raw pairs, so that a test can send what a client library would mend. `from`: the local address. */
export async function call (base: string, { method = 'GET', path = '/', headers = [], from }: CallOptions = {}): Promise<Answer> {
  const url = new URL(base)
  return await new Promise((resolve, reject) => {
    const sent = request({ agent, host: url.hostname, port: url.port, method, path, headers: ['host', url.host, ...headers], ...(from === undefined ? {} : { localAddress: from }) }, answer => {
      let body = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => { body += chunk }).on('end', () => {
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body })
      }).on('error', reject)
    })
    sent.on('error', reject).end()
  })
}

export const basic = (projectId: string, secret: string): string[] => ['authorization', `Basic ${Buffer.from(`${projectId}:${secret}`).toString('base64')}`]

export interface House {
  stack: Stack
  dir: string
  projectId: string
  /** The path of an operation (scope `forms`) of the project. */
  example: string
  admin: ReturnType<typeof createKeyServiceClient>
  createKey: (settings?: object) => Promise<Key>
  /** Changes a key and fulfils with its body. `path`: `/rotate`, `/disable`, ... or '' for PATCH and DELETE. */
  change: (key: Key, method: string, path: string, body?: unknown) => Promise<Key>
  /** Calls `example` through a gateway with Basic. */
  use: (gateway: number, secret: string, from?: string) => Promise<Answer>
  /** The sum of a metric's samples on a gateway whose labels contain `labels`. */
  metric: (gateway: number, name: string, labels?: string) => Promise<number>
  stop: () => Promise<void>
}

/** The whole house with real parts, in a folder of its own, with a project to work in. */
export async function openHouse (options: Partial<StackOptions> = {}): Promise<House> {
  const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-house-'))
  // A busy machine is not a silent Redis, nor a silent key-service: the deadlines are long where a test does not say otherwise.
  const patient = { KEYGATE_REDIS_TIMEOUT_MS: '5000' }
  const patientGateway = { ...patient, KEYGATE_VERIFY_TIMEOUT_MS: '5000', KEYGATE_MAX_EVENT_LOOP_DELAY_MS: '0' }
  const { gateway, keyService } = options.env ?? {}
  const env = { ...options.env, keyService: { ...patient, KEYGATE_DATABASE_TIMEOUT_MS: '20000', KEYGATE_REQUESTS_LIMIT: '100000', ...keyService }, gateway: (index: number) => ({ ...patientGateway, ...(typeof gateway === 'function' ? gateway(index) : gateway) }) }
  const stack = await startStack({ dir, ephemeral: true, logDir: join(dir, 'logs'), ...options, env })
  const admin = createKeyServiceClient(stack.keyService.url, stack.tokens.operator)
  const { id: projectId } = await admin.send<{ id: string }>('POST', '/v1/projects', { name: 'House' })
  const keys = `/v1/projects/${projectId}/keys`
  const example = `/app/api/v1/forms/${projectId}`
  return {
    stack,
    dir,
    projectId,
    example,
    admin,
    createKey: async settings => await admin.send<Key>('POST', keys, { name: 'k', allowedForAll: true, policies: [{ name: 'wide', limit: 100_000, windowSeconds: 60 }], ...settings }),
    change: async (key, method, path, body) => await admin.send<Key>(method, `${keys}/${key.id}${path}`, body),
    use: async (gateway, secret, from) => await call(stack.gateways[gateway]?.url ?? '', { path: example, headers: basic(projectId, secret), ...(from === undefined ? {} : { from }) }),
    metric: async (gateway, name, labels = '') => sumOf((await call(stack.gateways[gateway]?.metricsUrl ?? '', { path: '/metrics' })).body, name, labels),
    stop: async () => {
      agent.destroy()
      await stack.stop()
      rmSync(dir, { recursive: true, force: true })
    }
  }
}

function sumOf (text: string, name: string, labels: string): number {
  return text.split('\n')
    .filter(line => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
    .filter(line => line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

/** Asks until it holds: the one thing that no event tells is when another process has noticed. The deadline is for a broken test. */
export async function until<T> (what: string, ask: () => Promise<T>, holds: (value: T) => boolean): Promise<T> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await delay(10)) {
    const value = await ask().catch(() => undefined)
    if (value !== undefined && holds(value)) return value
  }
  throw new Error(`waited in vain: ${what}`)
}
