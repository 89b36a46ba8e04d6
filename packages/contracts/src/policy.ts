import { Type, type Static } from 'typebox'
import { count, freeText } from './bounds.ts'

/** A rate-limit policy as it crosses the wire; `packages/rate-limit` gives it meaning. */
export const PolicySchema = Type.Object({
  name: freeText(64, { minLength: 1 }),
  limit: count(1),
  windowSeconds: count(1),
  algorithm: Type.Union([Type.Literal('sliding'), Type.Literal('fixed')]),
  partition: Type.Union([Type.Literal('key'), Type.Literal('project'), Type.Literal('address')]),
  whenStoreIsDown: Type.Optional(Type.Union([Type.Literal('local'), Type.Literal('open'), Type.Literal('closed')], {
    description: 'while Redis does not answer: count this gateway\'s share (`local`, also when absent), admit uncounted (`open`), or refuse (`closed`)'
  }))
}, { additionalProperties: false })
export type PolicyBody = Static<typeof PolicySchema>
