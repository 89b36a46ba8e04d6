import { Type, type Static } from 'typebox'
import { memberRoles, permissions } from '../access/permissions.ts'
import { ProjectParams, Timestamp, ascii, nullable, oneOf, text } from '../schemas.ts'

const email = text(1000, { description: 'upper and lower case are the same' })
const name = Type.String({ description: '1 to 100 characters after trimming, no control characters' })
const role = oneOf([...memberRoles])
/** A bound on what is digested; what is asked of a new one stands in `password-text.ts`. */
const password = Type.String({ maxLength: 1000 })
const newPassword = Type.String({ maxLength: 1000, description: '12 to 200 characters' })

const exampleUser = 'usr_4VfTq2mYx8LrB6cPz1DsWk'
const exampleProject = '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10'
const strict = (example: object) => ({ additionalProperties: false, examples: [example] })

export const SignIn = Type.Object({ email, password }, strict({ email: 'ada@example.org', password: 'correct horse battery' }))
export const SetPassword = Type.Object({ token: Type.String({ maxLength: 200, description: 'what stands behind #token= in the link' }), password: newPassword }, strict({ token: 'pW1vL0nq7x4mC2dF8sJ5bT6yH3kR9gZaQeXuIoPlMvN', password: 'correct horse battery' }))
export const ConfirmPassword = Type.Object({ password }, strict({ password: 'correct horse battery' }))
export const ChangePassword = Type.Object({ currentPassword: password, newPassword }, strict({ currentPassword: 'correct horse battery', newPassword: 'staple battery horse' }))

const Grant = Type.Object({
  permission: oneOf([...permissions]),
  granted: Type.Boolean({ description: 'anywhere at all' }),
  projectIds: nullable(Type.Array(Type.String(), { description: 'where; null: everywhere, or it concerns no project' })),
  grantedBy: Type.String({ description: 'who can give it, as a sentence' })
})

export const Me = Type.Object({
  kind: oneOf(['person', 'token']),
  id: Type.String(),
  name: Type.String(),
  email: nullable(Type.String({ description: 'of a person' })),
  isOperator: Type.Boolean(),
  projects: Type.Array(Type.Object({ id: Type.String(), name: Type.String(), role: nullable(role) }), { description: 'of a person, those that the person is a member of; of a token, the one that it is bound to' }),
  permissions: Type.Array(Grant)
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

export const Invitation = Type.Object({ url: Type.String({ description: 'shown this once; whoever has it sets the password' }), expiresAt: Timestamp })

export const Member = Type.Object({
  userId: Type.String(),
  email: Type.String(),
  name: Type.String(),
  role,
  hasPassword: Type.Boolean({ description: 'false: invited, and not yet here' }),
  addedAt: Timestamp,
  addedBy: Type.String()
}, {
  $id: 'Member',
  examples: [{ userId: exampleUser, email: 'ada@example.org', name: 'Ada', role: 'manager', hasPassword: true, addedAt: '2026-11-20T10:00:00.000Z', addedBy: 'Grace' }]
})
export type Member = Static<typeof Member>

export const InvitedMember = Type.Object({ ...Member.properties, invitation: Type.Optional(Invitation) })
export const MemberList = Type.Object({ data: Type.Array(Type.Unsafe<Member>({ $ref: 'Member#' })), nextCursor: nullable(Type.String()) })

export const AddMember = Type.Object({ email, name: Type.Optional(name), role }, strict({ email: 'ada@example.org', name: 'Ada', role: 'manager' }))
export type AddMember = Static<typeof AddMember>
export const EditMember = Type.Object({ role }, strict({ role: 'viewer' }))
export const MemberParams = Type.Object({ ...ProjectParams.properties, userId: ascii(26, { description: 'id of the person, `usr_...`' }) })

export const Operator = Type.Object({ userId: Type.String(), email: Type.String(), name: Type.String(), hasPassword: Type.Boolean(), grantedAt: Timestamp, grantedBy: Type.String() }, {
  $id: 'Operator',
  examples: [{ userId: exampleUser, email: 'ada@example.org', name: 'Ada', hasPassword: true, grantedAt: '2026-11-20T10:00:00.000Z', grantedBy: 'Grace' }]
})
export type Operator = Static<typeof Operator>
export const OperatorList = Type.Object({ data: Type.Array(Type.Unsafe<Operator>({ $ref: 'Operator#' })), nextCursor: nullable(Type.String()) })
export const AddOperator = Type.Object({ email }, strict({ email: 'ada@example.org' }))
export const OperatorParams = Type.Object({ userId: ascii(26, { description: 'id of the person, `usr_...`' }) })

export const Page = Type.Object({
  cursor: Type.Optional(Type.String({ maxLength: 1000 })),
  limit: Type.Integer({ minimum: 1, maximum: 100, default: 50 })
}, { additionalProperties: false })
export type Page = Static<typeof Page>
