import { Type, type Static } from 'typebox'

/** How long something is logged. Never `null`: what is not logged has no such value. */
export const LoggedUntil = Type.Union([Type.String({ format: 'date-time', maxLength: 40 }), Type.Literal('forever')], {
  description: 'a date-time, or the word `forever`'
})
export type LoggedUntil = Static<typeof LoggedUntil>

/** Which requests of a key are logged, and for how long. */
export const Logging = Type.Object({
  all: Type.Union([LoggedUntil, Type.Null()], { description: 'requests of every scope; null: only those of `scopes`' }),
  scopes: Type.Record(Type.String(), LoggedUntil, { description: 'requests of single scopes; a scope that is absent is not logged' })
})
export type Logging = Static<typeof Logging>
