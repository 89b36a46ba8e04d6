import { PolicySchema } from '@keygate/contracts'
import { Type } from 'typebox'
import { nullable, oneOf } from '../schemas.ts'

/** A policy as people send it: `algorithm` is `sliding`, `partition` is `key` and `whenStoreIsDown` is `local` unless given. Its values are judged by `acceptPolicies`. */
export const PolicyInput = Type.Object({
  name: Type.String(),
  limit: Type.Integer(),
  windowSeconds: Type.Optional(Type.Integer()),
  window: Type.Optional(Type.String({ description: 'instead of windowSeconds: `60s`, `1m`, `1h`' })),
  algorithm: Type.Optional(oneOf(['sliding', 'fixed'])),
  partition: Type.Optional(oneOf(['key', 'project', 'address'])),
  whenStoreIsDown: Type.Optional(oneOf(['local', 'open', 'closed'], {
    description: 'while Redis does not answer: `local` counts each gateway\'s share of the limit, `open` admits uncounted, `closed` refuses'
  }))
}, { additionalProperties: false, examples: [{ name: 'default', limit: 20, windowSeconds: 60 }] })

export const PolicyListInput = nullable(Type.Array(PolicyInput, { minItems: 1, maxItems: 20 }))
export const PolicyList = nullable(Type.Array(PolicySchema))
