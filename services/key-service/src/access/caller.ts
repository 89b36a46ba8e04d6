import type { MemberRole, Permission } from './permissions.ts'

/** A service token that calls. */
export interface TokenCaller {
  kind: 'token'
  id: string
  name: string
  permissions: ReadonlySet<Permission>
  /** The one project that it sees; null: all. */
  projectId: string | null
}

/** A person who is signed in. */
export interface PersonCaller {
  kind: 'person'
  id: string
  name: string
  email: string
  isOperator: boolean
  /** By project id. */
  roles: ReadonlyMap<string, MemberRole>
  /** Digest of the session's id. */
  session: string
  /** When the password was last given, in Unix milliseconds of the database's clock, and that clock now. */
  authenticatedMs: number
  nowMs: number
}

export type Caller = TokenCaller | PersonCaller
