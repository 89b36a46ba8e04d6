import { writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basicOf, call, openGatewayHouse, type Answer, type CallOptions, type GatewayHouse, type Project } from './house.ts'

export interface Reached { method: string, url: string, headers: IncomingHttpHeaders }

export interface CatalogueHouse extends GatewayHouse {
  gateway: string
  project: Project
  key: { id: string, secret: string }
  ask: (path: string, headers?: string[], more?: CallOptions) => Promise<Answer>
  /** What came to the upstream, in its order; it is a server of this process, and says `reached`. */
  reached: Reached[]
  lastReached: () => Reached | undefined
  upstreamUrl: string
  /** An API of a catalogue, at `/<name>`. */
  api: (name: string, more: string, document?: string) => string
}

export const responses = { 200: { description: 'OK' } }
const formId = { name: 'formId', in: 'path', required: true, schema: { type: 'string' } }
export const securitySchemes = { basic: { type: 'http', scheme: 'basic' }, header: { type: 'apiKey', in: 'header', name: 'X-API-Key' }, bearer: { type: 'http', scheme: 'bearer' } }
export const keys = [{ basic: [] }, { header: [] }]
const mainDocument = (upstreamUrl: string) => ({
  openapi: '3.0.3',
  info: { title: 'Forms', version: '1.2.3', description: `Ask ${upstreamUrl}/inner.` },
  servers: [{ url: `${upstreamUrl}/inner` }],
  security: keys,
  paths: {
    '/forms/{formId}': { parameters: [{ $ref: '#/components/parameters/formId' }], get: { operationId: 'getForm', tags: ['forms'], summary: 'Read a form', responses } },
    '/forms/{formId}/files': { parameters: [formId], get: { operationId: 'listFiles', tags: ['files'], responses } },
    '/forms/{formId}/export': { parameters: [formId], get: { operationId: 'export', tags: ['forms'], responses } },
    '/people': { get: { operationId: 'people', security: [{ bearer: [] }], responses } },
    '/both': { get: { operationId: 'both', tags: ['forms'], security: [{ bearer: [] }, ...keys], responses } },
    '/status': { get: { operationId: 'status', security: [], responses } }
  },
  components: { securitySchemes, parameters: { formId: { ...formId, description: 'Which form.' } } }
})
/** The paths that `main` lists, in the document's order. */
export const mainPaths = Object.keys(mainDocument('').paths)

const hostile = '</style></title><script>alert(1)</script><img src=x onerror=alert(1)>"\'&{{x}}\u0000'
const hostileDocument = {
  openapi: '3.1.0',
  info: { title: hostile, version: hostile, description: hostile },
  paths: {
    '/"><svg onload=alert(1)>/$(id)/{p"><b>}': {
      get: {
        operationId: hostile,
        summary: hostile,
        description: hostile,
        tags: [hostile],
        security: [{ basic: [] }],
        parameters: [{ name: 'p"><b>', in: 'path', required: true, schema: { type: 'string', enum: [hostile] }, description: hostile }],
        requestBody: { content: { [hostile]: {} } },
        responses: { 200: { description: hostile } }
      }
    }
  },
  components: { securitySchemes }
}

export const as = (of: Project, secret: string): string[] => basicOf(`${of.id}:${secret}`)

/**
 * Three APIs before one upstream: `main` with all settings, `loose` with `unlisted: forward`, `hostile` with a document of texts that mean something
 * to a browser or a shell. Their documents come to stand in `dir`.
 */
export async function openCatalogueHouse (dir: string): Promise<CatalogueHouse> {
  // It answers preflights and lets any page read, as one with CORS of its own does.
  const reached: Reached[] = []
  const upstream = createServer((request, response) => {
    reached.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers })
    response.writeHead(200, { 'access-control-allow-origin': 'https://upstream.example', etag: '"1"' }).end('reached')
  })
  await new Promise<void>(resolve => { upstream.listen(0, '127.0.0.1', resolve) })
  const upstreamUrl = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`
  writeFileSync(`${dir}/main.json`, JSON.stringify(mainDocument(upstreamUrl)))
  writeFileSync(`${dir}/hostile.json`, JSON.stringify(hostileDocument))
  const api = (name: string, more: string, document = 'main'): string => `
  - name: ${name}
    prefix: /${name}
    upstream: ${upstreamUrl}/inner
    openapi: ${dir}/${document}.json${more}`
  const withProject = `
    project: { pathParameter: formId }`
  const house = await openGatewayHouse(() => `apis:${api('main', `${withProject}
    publicUrl: https://api.example.org/main
    otherSchemes: forward
    optInScopes: [files]
    cors: { origins: ["https://app.example.org"], headers: [X-Trace], exposedHeaders: [ETag], maxAgeSeconds: 60 }
    policies: [{ name: default, limit: 1000, window: 1h }]
    anonymousPolicies: [{ name: anonymous, limit: 900, window: 1h }]
    operations: { export: { policies: [{ name: export, limit: 1, window: 1h }] } }`)}${api('loose', `${withProject}
    unlisted: forward
    anonymousPolicies: [{ name: anonymous, limit: 6, window: 1h }]`)}${api('hostile', '', 'hostile')}`, { KEYGATE_REFUSALS_LIMIT: '100000' })
  const [gateway] = house.gateways as [string]
  const project = await house.createProject()
  return {
    ...house,
    gateway,
    project,
    key: await project.createKey(),
    ask: async (path, headers = [], more = {}) => await call(gateway, { path, headers, ...more }),
    reached,
    lastReached: () => reached.at(-1),
    upstreamUrl,
    api,
    stop: async () => {
      await house.stop()
      upstream.close()
      upstream.closeAllConnections()
    }
  }
}
