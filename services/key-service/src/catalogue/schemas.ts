import { PolicySchema } from '@keygate/contracts'
import { Type, type Static } from 'typebox'
import { nullable } from '../schemas.ts'

export const SearchCatalogue = Type.Object({
  search: Type.Optional(Type.String({ maxLength: 100, description: 'only scopes whose name contains this, in any case; `%` and `_` mean themselves' }))
}, { additionalProperties: false })

const Scope = Type.Object({
  name: Type.String(),
  optIn: Type.Boolean({ description: 'not among "all scopes": a key has it only when it is named' }),
  operations: Type.Array(Type.Object({
    id: Type.String(),
    method: Type.String(),
    path: Type.String({ description: 'below `publicUrl`, as the OpenAPI document writes it' })
  }), { description: 'what a key with this scope may call' })
})

export const CatalogueView = Type.Object({
  apis: Type.Array(Type.Object({
    name: Type.String(),
    prefix: Type.String({ description: 'of the path at the gateway; empty for an API at the root' }),
    publicUrl: nullable(Type.String()),
    scopes: Type.Array(Scope),
    policies: Type.Array(PolicySchema, { description: 'of keys that have no policies of their own, in projects that have none' }),
    anonymousPolicies: Type.Array(PolicySchema, { description: 'of requests without a key, per address' })
  }))
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
