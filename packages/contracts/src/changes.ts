import { Type, type Static } from 'typebox'
import { count, machineText, uuid } from './bounds.ts'

/** One change of a version: `keyId` is a key's id, or `*` for the project itself. */
export const Change = Type.Object({
  projectId: uuid(),
  keyId: machineText(100),
  version: count(1)
})
export type Change = Static<typeof Change>

export const ChangesQuery = Type.Object({
  after: Type.Optional(Type.String({ pattern: '^[0-9]{1,20}$', maxLength: 20, description: 'the cursor of the last answer' }))
}, { additionalProperties: false })
export type ChangesQuery = Static<typeof ChangesQuery>

/** A row may come twice and none is missed: the cursor is the oldest transaction still open when the page was read. */
export const ChangesPage = Type.Object({ data: Type.Array(Change, { maxItems: 10_000_000 }), cursor: machineText(100) })
export type ChangesPage = Static<typeof ChangesPage>
