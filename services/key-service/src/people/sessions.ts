import { randomBytes } from 'node:crypto'
import { digestSecret } from '@keygate/api-key'
import { and, eq, sql } from 'drizzle-orm'
import type { PersonCaller } from '../access/caller.ts'
import type { MemberRole } from '../access/permissions.ts'
import type { Executor } from '../db/database.ts'
import { oneTimeLinks, sessions } from '../db/schema.ts'

/** How long a session may go unused, and how long it lasts in any case, in milliseconds. */
export interface SessionLimits { idleMs: number, absoluteMs: number }

const shape = /^[\w-]{43}$/
const milliseconds = (ms: number) => sql`(${ms}::float8 * interval '1 millisecond')`
/** An SQL condition on a row of `sessions`. */
export const isOver = ({ idleMs, absoluteMs }: SessionLimits) =>
  sql`(${sessions.lastSeenAt} <= now() - ${milliseconds(idleMs)} OR ${sessions.createdAt} <= now() - ${milliseconds(absoluteMs)})`

/** Begins a session; what is returned goes into the cookie and stands nowhere else. */
export async function beginSession (tx: Executor, userId: string): Promise<string> {
  const id = randomBytes(32).toString('base64url')
  await tx.insert(sessions).values({ digest: digestSecret(id), userId })
  return id
}

interface SessionRow {
  session: string
  id: string
  name: string
  email: string
  isOperator: boolean
  roles: Record<string, MemberRole>
  authenticatedMs: number
  nowMs: number
  isToBeNoted: boolean
}

/** Who is signed in with this cookie, with all rights that the person has at this moment. `used`: the session lives on by it; a `looked-at` one ends as if nobody had come. */
export async function findCaller (db: Executor, id: string, limits: SessionLimits, as: 'used' | 'looked-at' = 'used'): Promise<PersonCaller | undefined> {
  if (!shape.test(id)) return undefined
  const [row] = await db.execute<SessionRow & Record<string, unknown>>(sql`
    SELECT ${sessions.digest} AS session, u.id, u.name, u.email,
      EXISTS (SELECT 1 FROM operators o WHERE o.user_id = u.id) AS "isOperator",
      (SELECT coalesce(json_object_agg(m.project_id, m.role), '{}') FROM members m WHERE m.user_id = u.id) AS roles,
      floor(extract(epoch FROM ${sessions.authenticatedAt}) * 1000)::float8 AS "authenticatedMs",
      floor(extract(epoch FROM now()) * 1000)::float8 AS "nowMs",
      ${isToBeNoted(limits)} AS "isToBeNoted"
    FROM ${sessions} JOIN users u ON u.id = ${sessions.userId}
    WHERE ${sessions.digest} = ${digestSecret(id)} AND NOT ${isOver(limits)}`)
  if (row === undefined) return undefined
  const { roles, isToBeNoted: mustNote, ...person } = row
  if (mustNote && as === 'used') await db.update(sessions).set({ lastSeenAt: sql`now()` }).where(and(eq(sessions.digest, person.session), isToBeNoted(limits)))
  return { kind: 'person', ...person, roles: new Map(Object.entries(roles)) }
}

/** Once a minute suffices, and spares a write per request; of a very short idle time a tenth, or its use would not prolong it. */
function isToBeNoted ({ idleMs }: SessionLimits) {
  return sql`${sessions.lastSeenAt} < now() - ${milliseconds(Math.min(60_000, idleMs / 10))}`
}

/** The password was given again; false: the session has ended meanwhile. */
export async function renewAuthentication (db: Executor, digest: string): Promise<boolean> {
  const renewed = await db.update(sessions).set({ authenticatedAt: sql`now()` }).where(eq(sessions.digest, digest)).returning({ userId: sessions.userId })
  return renewed.length > 0
}

/** @param digest of what the cookie holds. */
export async function endSession (db: Executor, digest: string): Promise<void> {
  await db.delete(sessions).where(eq(sessions.digest, digest))
}

/** @returns the digests of those that ended. */
export async function endSessionsOf (tx: Executor, userId: string): Promise<string[]> {
  return (await tx.delete(sessions).where(eq(sessions.userId, userId)).returning({ digest: sessions.digest })).map(({ digest }) => digest)
}

/** Removes what is over, a bounded number at a time. Rows that another one removes at this moment are left to it. */
export async function prune (tx: Executor, limits: SessionLimits): Promise<void> {
  await tx.execute(sql`DELETE FROM ${sessions} WHERE digest IN (SELECT digest FROM ${sessions} WHERE ${isOver(limits)} LIMIT 1000 FOR UPDATE SKIP LOCKED)`)
  await tx.execute(sql`DELETE FROM ${oneTimeLinks} WHERE digest IN (SELECT digest FROM ${oneTimeLinks} WHERE expires_at <= now() LIMIT 1000 FOR UPDATE SKIP LOCKED)`)
}
