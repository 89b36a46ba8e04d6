import { PolicySchema } from '@keygate/contracts'
import { Type, type Static } from 'typebox'
import { nullable, text } from '../schemas.ts'

export const SearchCatalogue = Type.Object({
  search: Type.Optional(Type.String({ maxLength: 100, pattern: '^[^]*$', description: 'only scopes whose name contains this, in any case; `%` and `_` mean themselves' }))
}, { additionalProperties: false })

/** Room for any catalogue. */
const many = 100_000

const Scope = Type.Object({
  name: text(200),
  optIn: Type.Boolean({ description: 'not among "all scopes": a key has it only when it is named' }),
  operations: Type.Array(Type.Object({
    id: text(2000),
    method: text(10),
    path: text(2000, { description: 'below `publicUrl`, as the OpenAPI document writes it' })
  }), { maxItems: many, description: 'what a key with this scope may call' })
})

export const CatalogueView = Type.Object({
  apis: Type.Array(Type.Object({
    name: text(64),
    prefix: text(2000, { description: 'of the path at the gateway; empty for an API at the root' }),
    publicUrl: nullable(text(2000)),
    scopes: Type.Array(Scope, { maxItems: many }),
    policies: Type.Array(PolicySchema, { maxItems: 1000, description: 'of keys that have no policies of their own, in projects that have none' }),
    anonymousPolicies: Type.Array(PolicySchema, { maxItems: 1000, description: 'of requests without a key, per address' })
  }), { maxItems: 1000 })
}, {
  examples: [{
    apis: [{
      name: 'forms',
      prefix: '/app/api/v1',
      publicUrl: 'https://api.example.org/app/api/v1',
      scopes: [{ name: 'submissions', optIn: false, operations: [{ id: 'listSubmissions', method: 'GET', path: '/forms/{formId}/submissions' }] }],
      policies: [{ name: 'default', limit: 120, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }],
      anonymousPolicies: [{ name: 'anonymous', limit: 500, windowSeconds: 60, algorithm: 'sliding', partition: 'address' }]
    }]
  }]
})
export type CatalogueView = Static<typeof CatalogueView>
