import { Type, type Static } from 'typebox'
import { ProjectParams, Timestamp, Uuid, Version, ascii, effect, integer, nullable, text } from '../schemas.ts'

/** Roles per project. As few as this are listed at once. */
export const maxRoles = 100

const scopes = Type.Array(text(200), { maxItems: 1000, description: 'names from the catalogue' })
const description = nullable(text(400, { description: 'at most 400 characters' }))
/** Judged by `parseName`; here is room for the spaces that it trims. */
const name = text(400, { description: '1 to 100 characters after trimming, no control characters; unique in the project' })

export const RoleParams = Type.Object({ ...ProjectParams.properties, roleId: ascii(27, { description: 'id of the role, `role_...`' }) })

export const Role = Type.Object({
  id: Type.String({ pattern: '^role_[0-9A-Za-z]{22}$', maxLength: 27 }),
  projectId: Uuid,
  name: text(100),
  description,
  scopes,
  keys: integer(0, Number.MAX_SAFE_INTEGER, { description: 'how many keys are bound to it' }),
  version: Version,
  ...effect,
  createdAt: Timestamp,
  createdBy: text(400)
}, {
  $id: 'Role',
  examples: [{
    id: 'role_4hJ8nR2vX6zB0cF5gK9mQ1',
    projectId: '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10',
    name: 'Bookkeeping',
    description: null,
    scopes: ['exports', 'submissions'],
    keys: 3,
    version: 2,
    effective: 'everywhere',
    effectiveAt: '2026-11-20T10:00:00.000Z',
    createdAt: '2026-11-19T09:30:00.000Z',
    createdBy: 'local-operator'
  }]
})
export type Role = Static<typeof Role>

export const RoleList = Type.Object({ data: Type.Array(Type.Unsafe<Role>({ $ref: 'Role#' }), { maxItems: maxRoles }), nextCursor: Type.Null({ description: 'all of them are on this page' }) })

export const CreateRole = Type.Object({ name, description: Type.Optional(description), scopes: Type.Optional(scopes) }, {
  additionalProperties: false, examples: [{ name: 'Bookkeeping', scopes: ['submissions', 'exports'] }]
})
export type CreateRole = Static<typeof CreateRole>

/** RFC 7396: a field that is absent stays as it is. */
export const EditRole = Type.Object({ name: Type.Optional(name), description: Type.Optional(description), scopes: Type.Optional(scopes) }, {
  additionalProperties: false, minProperties: 1, examples: [{ scopes: ['submissions'] }]
})
export type EditRole = Static<typeof EditRole>
