import { Type } from 'typebox'
import { integer, nullable, oneOf, text } from '../schemas.ts'

const choices = {
  algorithm: oneOf(['sliding', 'fixed']),
  partition: oneOf(['key', 'project', 'address']),
  whenStoreIsDown: oneOf(['local', 'open', 'closed'], {
    description: 'while Redis does not answer: `local` counts each gateway\'s share of the limit, `open` admits uncounted, `closed` refuses'
  })
}
/** RFC 9651 section 3.3.1: a header cannot carry more. */
const limit = integer(1, 999_999_999_999_999)
const windowSeconds = integer(1, 366 * 24 * 3600)

/** A policy as people send it: `algorithm` is `sliding`, `partition` is `key` and `whenStoreIsDown` is `local` unless given. Its values are judged by `acceptPolicies`. */
export const PolicyInput = Type.Object({
  name: text(1000),
  limit,
  windowSeconds: Type.Optional(windowSeconds),
  window: Type.Optional(text(20, { description: 'instead of windowSeconds: `60s`, `1m`, `1h`' })),
  ...Type.Partial(Type.Object(choices)).properties
}, { additionalProperties: false, examples: [{ name: 'default', limit: 20, windowSeconds: 60 }] })

const { whenStoreIsDown, ...others } = choices
/** As it is stored and shown: `PolicySchema` of the contracts. */
const Policy = Type.Object({ name: text(64), limit, windowSeconds, ...others, whenStoreIsDown: Type.Optional(whenStoreIsDown) }, { additionalProperties: false })

export const PolicyListInput = nullable(Type.Array(PolicyInput, { minItems: 1, maxItems: 20 }))
export const PolicyList = nullable(Type.Array(Policy, { maxItems: 20 }))
