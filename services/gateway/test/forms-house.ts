import { basicOf, call, openGatewayHouse, type Answer, type GatewayHouse, type Project } from './house.ts'

/** The forms API as an installation would have it, and the ways to call it. */
export interface FormsHouse extends GatewayHouse {
  one: string
  two: string
  get: (path: string, headers?: string[], gateway?: string) => Promise<Answer>
}

/** @param more further entries of the catalogue. */
export async function openFormsHouse (more: (dead: string) => string = () => ''): Promise<FormsHouse> {
  const house = await openGatewayHouse((upstream, dead) => `
apis:
  - name: forms
    prefix: /app/api/v1
    upstream: ${upstream}/app/api/v1
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    optInScopes: [files]
    policies: [{ name: default, limit: 20, window: 60s }]
    anonymousPolicies: [{ name: anonymous, limit: 7, window: 11s, partition: address }]
    operations:
      exportSubmissions: { policies: [{ name: export, limit: 2, window: 60s }] }${more(dead)}
`, { KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_REDIS_TIMEOUT_MS: '5000' })
  const [one, two] = house.gateways as [string, string]
  return { ...house, one, two, get: async (path, headers = [], gateway = one) => await call(gateway, { path, headers }) }
}

/** The same document with another upstream, for a catalogue: `120 per 60 s`, which is the default. */
export const formsBefore = (name: string, upstream: string): string => `
  - name: ${name}
    prefix: /${name}
    upstream: ${upstream}
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags`

export const form = (project: { id: string }, rest = ''): string => `/app/api/v1/forms/${project.id}${rest}`

export const as = (project: Project, secret: string): string[] => basicOf(`${project.id}:${secret}`)

export const wide = { policies: [{ name: 'wide', limit: 1000, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }] }
