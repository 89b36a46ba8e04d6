import { and, eq } from 'drizzle-orm'
import type { MemberRole } from '../access/permissions.ts'
import { whileStillAs, type RightfulContext } from '../access/still.ts'
import { recordAudit, type AuditEntry } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import type { Queue } from '../db/queues.ts'
import { members, passwords } from '../db/schema.ts'
import { conflict, memberNotFound, projectNotFound } from '../errors.ts'
import { holdProject } from '../keys/repository.ts'
import { hasProject } from '../projects/queries.ts'
import { endUnfoundedTokens } from '../service-tokens/repository.ts'
import { findOrCreateAccount, hasPassword, hasRightsElsewhere } from './accounts.ts'
import { acceptPerson } from './accept-person.ts'
import { findMember } from './member-queries.ts'
import { lifetimes, makeLink, type OneTimeLink } from './one-time-links.ts'
import type { AddMember, Member } from './schemas.ts'
import { giverOf, holdAccount, requireVouched, vouch } from './vouching.ts'

export interface AddedMember extends Member { invitation?: OneTimeLink }

type Work<T> = (tx: Executor, projectId: string) => Promise<{ value: T, action: string, details: Record<string, unknown> }>

/** Everything that changes who belongs to a project. One at a time per project, so that two cannot both take the last owner but one away. */
export function createMemberCommands ({ database, publicUrl }: { database: Database, publicUrl: string }) {
  /** @param from whom it takes a right away. Their tokens end with it, and those may rest on rights elsewhere, where another removal may be under way. */
  async function change<T> (context: RightfulContext, project: string, work: Work<T>, from?: string): Promise<T> {
    const projectId = project.toLowerCase()
    return await whileStillAs(database, context, async tx => {
      const { value, action, details } = await work(tx, projectId)
      const entry: AuditEntry = { action: `member.${action}`, projectId, keyId: null, details }
      await recordAudit(tx, context, entry)
      return value
    }, {
      queues: async () => [{ of: 'members', id: projectId, alone: true }, ...from === undefined ? [] : [{ of: 'person', id: from, alone: true } satisfies Queue]],
      first: async tx => { if (!await hasProject(tx, projectId)) throw projectNotFound() }
    })
  }

  return {
    async add (context: RightfulContext, project: string, body: AddMember): Promise<AddedMember> {
      const { email, name } = acceptPerson(body)
      return await change(context, project, async (tx, projectId) => {
        const giver = await giverOf(tx, context.basis.caller)
        const account = await findOrCreateAccount(tx, { email, name, createdBy: context.actor.name, vouchedBy: giver.id })
        const vouchedBy = await holdAccount(tx, account.id)
        await addMember(tx, { projectId, userId: account.id, role: body.role, addedBy: context.actor.name })
        requireVouched(vouchedBy, giver.id)
        const invitation = account.isNew ? { invitation: await makeLink(tx, account.id, { publicUrl, lifetimeMs: lifetimes.invitation }) } : {}
        return {
          value: { ...await memberOf(tx, projectId, account.id), ...invitation },
          action: 'add',
          details: { userId: account.id, email, role: body.role, isInvited: account.isNew }
        }
      })
    },

    async edit (context: RightfulContext, project: string, userId: string, role: MemberRole): Promise<Member> {
      return await change(context, project, async (tx, projectId) => {
        const before = await memberOf(tx, projectId, userId)
        await tx.update(members).set({ role }).where(rowOf(projectId, userId))
        if (before.role === 'owner') await requireOwner(tx, projectId, before)
        const endedTokens = await endUnfoundedTokens(tx, userId)
        return { value: { ...before, role }, action: 'edit', details: { userId, from: before.role, to: role, endedTokens } }
      }, userId)
    },

    async remove (context: RightfulContext, project: string, userId: string): Promise<void> {
      await change(context, project, async (tx, projectId) => {
        const before = await memberOf(tx, projectId, userId)
        await tx.delete(members).where(rowOf(projectId, userId))
        if (before.role === 'owner') await requireOwner(tx, projectId, before)
        return { value: undefined, action: 'remove', details: { userId, role: before.role, endedTokens: await endUnfoundedTokens(tx, userId) } }
      }, userId)
    },

    /** For somebody who lost the invitation. Whoever has the link gets the account, so it must open nothing but this project, and who makes it vouches. */
    async invite (context: RightfulContext, project: string, userId: string): Promise<OneTimeLink> {
      return await change(context, project, async (tx, projectId) => {
        await memberOf(tx, projectId, userId)
        await holdAccount(tx, userId)
        if (await hasPassword(tx, userId)) throw conflict('already_joined', 'This person has a password. Who forgot it asks whoever runs this installation for a new link.')
        if (await hasRightsElsewhere(tx, userId, projectId)) throw conflict('belongs_elsewhere', 'This person belongs to other projects too, or is an operator. Whoever runs this installation makes the link: key-service\'s command "people link".')
        await vouch(tx, userId, (await giverOf(tx, context.basis.caller)).id)
        return { value: await makeLink(tx, userId, { publicUrl, lifetimeMs: lifetimes.invitation }), action: 'invite', details: { userId } }
      })
    }
  }
}

export type MemberCommands = ReturnType<typeof createMemberCommands>

/** @throws {ProblemError} 409 for somebody who is one already; 404 for a project that is being deleted. */
export async function addMember (tx: Executor, member: typeof members.$inferInsert): Promise<void> {
  if (await holdProject(tx, member.projectId) === undefined) throw projectNotFound()
  const added = await tx.insert(members).values(member).onConflictDoNothing().returning({ userId: members.userId })
  if (added.length === 0) throw conflict('member_exists', 'This person is a member of the project already. Change the role instead.')
}

const rowOf = (projectId: string, userId: string) => and(eq(members.projectId, projectId), eq(members.userId, userId))

async function memberOf (tx: Executor, projectId: string, userId: string): Promise<Member> {
  const found = await findMember(tx, projectId, userId)
  if (found === undefined) throw memberNotFound()
  return found
}

/**
 * A project with members has somebody who can let others in; one without belongs to service tokens. Who was invited and has no
 * password yet cannot: the last one who can sign in stays, too.
 *
 * @param before the owner who has just ceased to be one.
 */
async function requireOwner (tx: Executor, projectId: string, before: Pick<Member, 'hasPassword'>): Promise<void> {
  const owners = await tx.select({ digest: passwords.hash }).from(members).leftJoin(passwords, eq(passwords.userId, members.userId)).where(and(eq(members.projectId, projectId), eq(members.role, 'owner')))
  const left = before.hasPassword ? owners.filter(({ digest }) => digest !== null) : owners
  if (left.length === 0) throw conflict('last_owner', 'This is the last owner of the project who can sign in. Make another member who has a password an owner first.')
}
