import { and, asc, eq, sql } from 'drizzle-orm'
import { isInstant, readCursor, writeCursor } from '../cursor.ts'
import type { Executor } from '../db/database.ts'
import { queueFor } from '../db/queues.ts'
import { members, operators, passwords, users } from '../db/schema.ts'
import { hasProject } from '../projects/queries.ts'
import type { Member, Operator, Page } from './schemas.ts'

const hasPassword = sql<boolean>`EXISTS (SELECT 1 FROM ${passwords} WHERE ${passwords.userId} = ${users.id})`
const person = { userId: users.id, email: users.email, name: users.name, hasPassword }
const userIdShape = /^usr_[0-9A-Za-z]{22}$/

const selectMembers = (db: Executor) => db.select({ ...person, role: members.role, at: members.addedAt, by: members.addedBy })
  .from(members).innerJoin(users, eq(users.id, members.userId))
const selectOperators = (db: Executor) => db.select({ ...person, at: operators.grantedAt, by: operators.grantedBy })
  .from(operators).innerJoin(users, eq(users.id, operators.userId))

export async function findMember (db: Executor, projectId: string, userId: string): Promise<Member | undefined> {
  if (!userIdShape.test(userId)) return undefined
  const [found] = await selectMembers(db).where(and(eq(members.projectId, projectId), eq(members.userId, userId)))
  return found === undefined ? undefined : memberOf(found)
}

/** One page, in the order in which they were added. */
export async function listMembers (db: Executor, projectId: string, page: Page): Promise<{ data: Member[], nextCursor: string | null }> {
  const found = await selectMembers(db).where(and(eq(members.projectId, projectId), after(page, sql`${members.addedAt}`))).orderBy(asc(members.addedAt), asc(users.id)).limit(page.limit + 1)
  return { data: found.slice(0, page.limit).map(memberOf), nextCursor: next(found, page.limit) }
}

export async function findOperator (db: Executor, userId: string): Promise<Operator | undefined> {
  const [found] = await selectOperators(db).where(eq(operators.userId, userId))
  return found === undefined ? undefined : operatorOf(found)
}

/** One page, in the order in which they became operators. */
export async function listOperators (db: Executor, page: Page): Promise<{ data: Operator[], nextCursor: string | null }> {
  const found = await selectOperators(db).where(after(page, sql`${operators.grantedAt}`)).orderBy(asc(operators.grantedAt), asc(users.id)).limit(page.limit + 1)
  return { data: found.slice(0, page.limit).map(operatorOf), nextCursor: next(found, page.limit) }
}

/** For a change of the project's members that the host makes, which rests on no right: keeps out other such changes, and the project's deletion. False: there is no such project. */
export async function holdMembership (tx: Executor, projectId: string): Promise<boolean> {
  await queueFor(tx, [{ of: 'project', id: projectId, alone: false }, { of: 'members', id: projectId, alone: true }])
  return await hasProject(tx, projectId)
}

const sort = 'since'

function after ({ cursor }: Page, column: ReturnType<typeof sql>) {
  if (cursor === undefined) return undefined
  const { value, id } = readCursor(cursor, sort, { value: isInstant, id: userIdShape })
  return sql`(${column}, ${users.id}) > (${value}::timestamptz, ${id})`
}

interface Row { userId: string, email: string, name: string, hasPassword: boolean, at: Date, by: string }

function next (found: Row[], limit: number): string | null {
  const last = found[limit - 1]
  return found.length <= limit || last === undefined ? null : writeCursor(sort, { value: last.at.toISOString(), id: last.userId })
}

const memberOf = ({ at, by, ...member }: Row & { role: Member['role'] }): Member => ({ ...member, addedAt: at.toISOString(), addedBy: by })
const operatorOf = ({ at, by, ...operator }: Row): Operator => ({ ...operator, grantedAt: at.toISOString(), grantedBy: by })
