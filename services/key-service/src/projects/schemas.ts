import { Type, type Static } from 'typebox'
import { PolicyList, PolicyListInput } from '../policies/schemas.ts'
import { NextCursor, Timestamp, Uuid, Version, effect, page, text } from '../schemas.ts'

export const Project = Type.Object({
  id: { ...Uuid, description: 'also the Basic username of its keys' },
  name: text(100),
  policies: PolicyList,
  version: Version,
  ...effect,
  createdAt: Timestamp,
  createdBy: text(400)
}, {
  $id: 'Project',
  examples: [{
    id: '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10',
    name: 'Grant applications',
    policies: [{ name: 'default', limit: 20, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }],
    version: 1,
    effective: 'everywhere',
    effectiveAt: '2026-11-20T10:00:00.000Z',
    createdAt: '2026-11-20T10:00:00.000Z',
    createdBy: 'local-operator'
  }]
})
export type Project = Static<typeof Project>

export const ProjectList = Type.Object({ data: Type.Array(Type.Unsafe<Project>({ $ref: 'Project#' }), { maxItems: 100 }), nextCursor: NextCursor })

const name = text(400, { description: '1 to 100 characters after trimming, no control characters' })

const owner = text(1000, { description: 'e-mail address of a person who has an account; required of people, who cannot name themselves or an operator' })

export const CreateProject = Type.Object({ name, policies: Type.Optional(PolicyListInput), owner: Type.Optional(owner) }, { additionalProperties: false, examples: [{ name: 'Grant applications', owner: 'ada@example.org' }] })
export type CreateProject = Static<typeof CreateProject>

/** RFC 7396: a field that is absent stays as it is. */
export const EditProject = Type.Object({ name: Type.Optional(name), policies: Type.Optional(PolicyListInput) }, {
  additionalProperties: false, minProperties: 1, examples: [{ policies: [{ name: 'default', limit: 20, window: '60s' }] }]
})
export type EditProject = Static<typeof EditProject>

export const ListProjects = Type.Object(page, { additionalProperties: false })
export type ListProjects = Static<typeof ListProjects>
