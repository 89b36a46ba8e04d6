import { Type, type Static } from 'typebox'
import { memberRoles, permissions } from '../access/permissions.ts'
import { NextCursor, ProjectParams, Timestamp, Uuid, ascii, nullable, oneOf, page, text } from '../schemas.ts'

const email = text(1000, { description: 'upper and lower case are the same' })
const name = text(400, { description: '1 to 100 characters after trimming, no control characters' })
const role = oneOf([...memberRoles])
/** A bound on what is digested; what is asked of a new one stands in `password-text.ts`. */
const password = text(1000)
const newPassword = text(1000, { description: '12 to 200 characters' })
const shownName = text(100)
const shownEmail = text(254)
const userId = ascii(26, { description: 'id of the person, `usr_...`' })

const exampleUser = 'usr_4VfTq2mYx8LrB6cPz1DsWk'
const exampleProject = '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10'
const strict = (example: object) => ({ additionalProperties: false, examples: [example] })

export const SignIn = Type.Object({ email, password }, strict({ email: 'ada@example.org', password: 'correct horse battery' }))
export const SetPassword = Type.Object({ token: ascii(200, { description: 'what stands behind #token= in the link' }), password: newPassword }, strict({ token: 'pW1vL0nq7x4mC2dF8sJ5bT6yH3kR9gZaQeXuIoPlMvN', password: 'correct horse battery' }))
export const ConfirmPassword = Type.Object({ password }, strict({ password: 'correct horse battery' }))
export const ChangePassword = Type.Object({ currentPassword: password, newPassword }, strict({ currentPassword: 'correct horse battery', newPassword: 'staple battery horse' }))

const Grant = Type.Object({
  permission: oneOf([...permissions]),
  granted: Type.Boolean({ description: 'anywhere at all' }),
  projectIds: nullable(Type.Array(Uuid, { maxItems: 100_000, description: 'where; null: everywhere, or it concerns no project' })),
  grantedBy: text(400, { description: 'who can give it, as a sentence' })
})

export const Me = Type.Object({
  kind: oneOf(['person', 'token']),
  id: ascii(100),
  name: shownName,
  email: nullable({ ...shownEmail, description: 'of a person' }),
  isOperator: Type.Boolean(),
  projects: Type.Array(Type.Object({ id: Uuid, name: shownName, role: nullable(role) }), { maxItems: 100_000, description: 'of a person, those that the person is a member of; of a token, the one that it is bound to' }),
  permissions: Type.Array(Grant, { maxItems: permissions.length })
}, {
  $id: 'Me',
  examples: [{
    kind: 'person',
    id: exampleUser,
    name: 'Ada',
    email: 'ada@example.org',
    isOperator: false,
    projects: [{ id: exampleProject, name: 'Grant applications', role: 'manager' }],
    permissions: [{ permission: 'keys:reveal', granted: false, projectIds: [], grantedBy: 'It is granted by an owner of the project, who makes you its owner. A service token gets its permissions when it is made.' }]
  }]
})
export type Me = Static<typeof Me>

export const Invitation = Type.Object({ url: ascii(1000, { description: 'shown this once; whoever has it sets the password' }), expiresAt: Timestamp })

export const Member = Type.Object({
  userId,
  email: shownEmail,
  name: shownName,
  role,
  hasPassword: Type.Boolean({ description: 'false: invited, and not yet here' }),
  addedAt: Timestamp,
  addedBy: shownName
}, {
  $id: 'Member',
  examples: [{ userId: exampleUser, email: 'ada@example.org', name: 'Ada', role: 'manager', hasPassword: true, addedAt: '2026-11-20T10:00:00.000Z', addedBy: 'Grace' }]
})
export type Member = Static<typeof Member>

export const InvitedMember = Type.Object({ ...Member.properties, invitation: Type.Optional(Invitation) })
export const MemberList = Type.Object({ data: Type.Array(Type.Unsafe<Member>({ $ref: 'Member#' }), { maxItems: 100 }), nextCursor: NextCursor })

export const AddMember = Type.Object({ email, name: Type.Optional(name), role }, strict({ email: 'ada@example.org', name: 'Ada', role: 'manager' }))
export type AddMember = Static<typeof AddMember>
export const EditMember = Type.Object({ role }, strict({ role: 'viewer' }))
export const MemberParams = Type.Object({ ...ProjectParams.properties, userId })

export const Operator = Type.Object({ userId, email: shownEmail, name: shownName, hasPassword: Type.Boolean(), grantedAt: Timestamp, grantedBy: shownName }, {
  $id: 'Operator',
  examples: [{ userId: exampleUser, email: 'ada@example.org', name: 'Ada', hasPassword: true, grantedAt: '2026-11-20T10:00:00.000Z', grantedBy: 'Grace' }]
})
export type Operator = Static<typeof Operator>
export const OperatorList = Type.Object({ data: Type.Array(Type.Unsafe<Operator>({ $ref: 'Operator#' }), { maxItems: 100 }), nextCursor: NextCursor })
export const AddOperator = Type.Object({ email }, strict({ email: 'ada@example.org' }))
export const OperatorParams = Type.Object({ userId })

export const Page = Type.Object(page, { additionalProperties: false })
export type Page = Static<typeof Page>
