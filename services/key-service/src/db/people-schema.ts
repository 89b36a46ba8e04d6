import { sql } from 'drizzle-orm'
import { check, index, pgTable, primaryKey, text, uniqueIndex, uuid } from 'drizzle-orm/pg-core'
import { instant } from './columns.ts'
import { projects } from './schema.ts'

/** A person's account. How the person signs in stands apart (`identities`), so that a provider's can be added later. */
export const users = pgTable('users', {
  id: text('id').primaryKey(),
  /** In lower case, as it is compared. */
  email: text('email').notNull(),
  name: text('name').notNull(),
  /**
   * Who says that the account is the person of this address; null: the host. An address proves nothing, and whoever made the
   * invitation had its link, so others than the one who vouches must not build on the account.
   */
  vouchedBy: text('vouched_by'),
  createdAt: instant('created_at').notNull().defaultNow(),
  createdBy: text('created_by').notNull()
}, table => [uniqueIndex('users_email').on(table.email)])

/** Who somebody is at a provider: `local` and the e-mail address, or an issuer and its subject. */
export const identities = pgTable('identities', {
  provider: text('provider').notNull(),
  subject: text('subject').notNull(),
  userId: text('user_id').notNull().references(() => users.id, { onDelete: 'cascade' })
}, table => [primaryKey({ columns: [table.provider, table.subject] }), index('identities_by_user').on(table.userId)])

/** Argon2id in PHC format. No row: the account cannot sign in with a password yet. */
export const passwords = pgTable('passwords', {
  userId: text('user_id').primaryKey().references(() => users.id, { onDelete: 'cascade' }),
  hash: text('hash').notNull(),
  setAt: instant('set_at').notNull().defaultNow()
})

/** Links that let somebody set a password, once. Only the digest of what stands in the link is kept. */
export const oneTimeLinks = pgTable('one_time_links', {
  digest: text('digest').primaryKey(),
  userId: text('user_id').notNull().references(() => users.id, { onDelete: 'cascade' }),
  expiresAt: instant('expires_at').notNull(),
  createdAt: instant('created_at').notNull().defaultNow()
}, table => [index('one_time_links_by_user').on(table.userId)])

export const sessions = pgTable('sessions', {
  /** Of what the cookie holds. */
  digest: text('digest').primaryKey(),
  userId: text('user_id').notNull().references(() => users.id, { onDelete: 'cascade' }),
  createdAt: instant('created_at').notNull().defaultNow(),
  /** When the password was last given: a reveal wants a recent one. */
  authenticatedAt: instant('authenticated_at').notNull().defaultNow(),
  lastSeenAt: instant('last_seen_at').notNull().defaultNow()
}, table => [index('sessions_by_user').on(table.userId)])

export const operators = pgTable('operators', {
  userId: text('user_id').primaryKey().references(() => users.id),
  grantedAt: instant('granted_at').notNull().defaultNow(),
  grantedBy: text('granted_by').notNull()
})

export const members = pgTable('members', {
  projectId: uuid('project_id').notNull().references(() => projects.id),
  userId: text('user_id').notNull().references(() => users.id),
  role: text('role', { enum: ['owner', 'manager', 'viewer'] }).notNull(),
  addedAt: instant('added_at').notNull().defaultNow(),
  addedBy: text('added_by').notNull()
}, table => [
  primaryKey({ columns: [table.projectId, table.userId] }),
  index('members_by_user').on(table.userId),
  check('members_role', sql`${table.role} IN ('owner', 'manager', 'viewer')`)
])
