import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basicOf, call, openGatewayHouse, type Answer, type Gateway, type GatewayHouse, type Project } from './house.ts'

export interface ProbeHouse extends GatewayHouse {
  /** Believes what the other end of the connection says of the client; this process is the proxy. Knows UUIDs of other systems. */
  behindProxy: Gateway
  /** What reached the upstream, which is in this process; it answers 200, or as `?status=` says. */
  upstream: { hits: number, headers: IncomingHttpHeaders, url: string }
  get: (path: string, headers?: string[], url?: string) => Promise<Answer>
}

/** The forms API before an upstream that shows what reaches it (`/probe`), and one that refuses (`/dead`). */
export async function openProbeHouse (): Promise<ProbeHouse> {
  const upstream: ProbeHouse['upstream'] = { hits: 0, headers: {}, url: '' }
  const server = createServer((request, response) => {
    upstream.hits++
    upstream.headers = request.headers
    upstream.url = request.url ?? ''
    response.writeHead(Number(new URL(upstream.url, 'http://probe').searchParams.get('status') ?? 200)).end('ok')
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  const house = await openGatewayHouse((_, dead) => `
apis:
  - name: probe
    prefix: /probe
    upstream: http://127.0.0.1:${(server.address() as AddressInfo).port}
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    optInScopes: [files]
    policies: [{ name: default, limit: 100000, window: 60s }]
    anonymousPolicies: [{ name: anonymous, limit: 4, window: 3600s, partition: address }]
  - name: dead
    prefix: /dead
    upstream: ${dead}
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
`, { KEYGATE_REFUSALS_LIMIT: '100000' })
  const [one] = house.gateways as [string]
  return {
    ...house,
    behindProxy: await house.openGateway({ KEYGATE_TRUST_PROXY: '127.0.0.1, 10.0.0.0/8, fd00::/8', KEYGATE_IMPORT_FORMS: 'uuid' }),
    upstream,
    get: async (path, headers = [], url = one) => await call(url, { path, headers }),
    stop: async () => {
      await house.stop()
      server.close()
    }
  }
}

export const form = (project: { id: string }, rest = ''): string => `/probe/forms/${project.id}${rest}`

export const as = (project: Pick<Project, 'id'>, secret: string): string[] => basicOf(`${project.id}:${secret}`)
