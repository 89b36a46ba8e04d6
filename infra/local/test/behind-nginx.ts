import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import { repoRoot } from '../src/root.ts'

export type ShippedFile = 'gateways.conf' | 'balancer.conf' | 'forward-auth.conf'

/** The shipped files as they are, with addresses (host:port) in the places that infra/nginx/README.md names. */
export function shippedConfig (files: ShippedFile[], addresses: Record<string, string>): string {
  return files.map(file => readFileSync(join(repoRoot, 'infra/nginx', file), 'utf8')).join('\n')
    .replaceAll(/\$\{(KEYGATE_\w+)\}/g, (place, name: string) => {
      const address = addresses[name]
      if (address === undefined) throw new Error(`${place} has no value`)
      return address
    })
}

/** What is behind a URL, as nginx names it. */
export const hostOf = (url: string | undefined): string => new URL(url ?? '').host

export interface Answer { status: number, headers: Record<string, string | undefined>, rawHeaders: string[], body: string }

export interface Call {
  method?: string
  path?: string
  /** Raw pairs. */
  headers?: string[]
  body?: string
  /** The local address. */
  from?: string
  /** Default: connections are kept. */
  agent?: Agent
}

export const keptAlive = new Agent({ keepAlive: true, maxSockets: 64 })

/** One HTTP call; rejects when there is no whole answer. */
export async function send (base: string, { method = 'GET', path = '/', headers = [], body, from, agent = keptAlive }: Call): Promise<Answer> {
  const { hostname, port, host } = new URL(base)
  return await new Promise((resolve, reject) => {
    const sent = request({ agent, host: hostname, port, method, path, headers: ['host', host, ...headers], ...(from !== undefined && { localAddress: from }) }, answer => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => { text += chunk }).on('error', reject).on('end', () => {
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers as Answer['headers'], rawHeaders: answer.rawHeaders, body: text })
      })
    })
    sent.on('error', reject).end(body)
  })
}
