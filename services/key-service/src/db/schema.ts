import { sql } from 'drizzle-orm'
import { bigint, boolean, check, customType, foreignKey, index, integer, jsonb, pgTable, primaryKey, text, timestamp, uniqueIndex, uuid } from 'drizzle-orm/pg-core'

/** A transaction's 64-bit id; text here, because it may exceed what a number holds. */
const xid8 = customType<{ data: string }>({ dataType: () => 'xid8' })
/** Milliseconds, as in every answer: what is stored is what is compared. */
const instant = (name: string) => timestamp(name, { withTimezone: true, precision: 3, mode: 'date' })
const version = (name: string) => bigint(name, { mode: 'number' })

export const projects = pgTable('projects', {
  id: uuid('id').primaryKey().defaultRandom(),
  name: text('name').notNull(),
  version: version('version').notNull().default(1),
  effectiveVersion: version('effective_version').notNull().default(0),
  effectiveAt: instant('effective_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
  createdBy: text('created_by').notNull(),
  deletedAt: instant('deleted_at')
}, table => [
  index('projects_by_age').on(table.createdAt, table.id).where(sql`deleted_at IS NULL`)
])

export const serviceTokens = pgTable('service_tokens', {
  id: text('id').primaryKey(),
  name: text('name').notNull(),
  /** base64url of the SHA-256: the token is random, so there is no dictionary to slow down. */
  digest: text('digest').notNull(),
  permissions: text('permissions').array().notNull(),
  /** Given: the token sees this project alone. No foreign key: the file may name a project that is made later. */
  projectId: uuid('project_id'),
  /** It stands in KEYGATE_SERVICE_TOKENS_FILE, and ends when it no longer does. */
  fromFile: boolean('from_file').notNull().default(false),
  expiresAt: instant('expires_at'),
  createdAt: instant('created_at').notNull().defaultNow()
}, table => [
  uniqueIndex('service_tokens_name').on(table.name),
  uniqueIndex('service_tokens_digest').on(table.digest)
])

export const keys = pgTable('keys', {
  projectId: uuid('project_id').notNull().references(() => projects.id),
  id: text('id').notNull(),
  name: text('name').notNull(),
  description: text('description'),
  /** `expired` is no status of its own: time decides it, no row has to be touched for it. */
  status: text('status', { enum: ['active', 'disabled', 'revoked', 'deleted'] }).notNull(),
  allowedForAll: boolean('allowed_for_all').notNull(),
  expiresAt: instant('expires_at'),
  version: version('version').notNull().default(1),
  /** The highest version that Redis has confirmed, and since when. */
  effectiveVersion: version('effective_version').notNull().default(0),
  effectiveAt: instant('effective_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
  createdBy: text('created_by').notNull()
}, table => [
  primaryKey({ columns: [table.projectId, table.id] }),
  // An id is unique over the installation: it is named in logs and metrics without its project.
  uniqueIndex('keys_id').on(table.id),
  index('keys_by_age').on(table.projectId, table.createdAt, table.id),
  index('keys_by_name').on(table.projectId, table.name, table.id),
  check('keys_status', sql`${table.status} IN ('active', 'disabled', 'revoked', 'deleted')`)
])

const keyReference = { projectId: uuid('project_id').notNull(), keyId: text('key_id').notNull() }

export const secrets = pgTable('secrets', {
  ...keyReference,
  id: text('id').primaryKey(),
  /** HMAC-SHA256(pepper, sha256(secret)), base64url. */
  digest: text('digest').notNull(),
  hint: text('hint').notNull(),
  state: text('state', { enum: ['current', 'retiring'] }).notNull(),
  /** End of a rotation's grace. */
  notAfter: instant('not_after'),
  createdAt: instant('created_at').notNull().defaultNow()
}, table => [
  foreignKey({ name: 'secrets_key', columns: [table.projectId, table.keyId], foreignColumns: [keys.projectId, keys.id] }),
  uniqueIndex('secrets_digest').on(table.digest),
  // At most two secrets per key: one current, one retiring. The database holds it even if two rotations should ever meet.
  uniqueIndex('secrets_state').on(table.projectId, table.keyId, table.state),
  check('secrets_not_after', sql`(${table.state} = 'retiring') = (${table.notAfter} IS NOT NULL)`)
])

export const keyScopes = pgTable('key_scopes', { ...keyReference, scope: text('scope').notNull() }, table => [
  primaryKey({ columns: [table.projectId, table.keyId, table.scope] }),
  foreignKey({ name: 'key_scopes_key', columns: [table.projectId, table.keyId], foreignColumns: [keys.projectId, keys.id] })
])

export const allowedHosts = pgTable('allowed_hosts', { ...keyReference, position: integer('position').notNull(), host: text('host').notNull() }, table => [
  primaryKey({ columns: [table.projectId, table.keyId, table.host] }),
  foreignKey({ name: 'allowed_hosts_key', columns: [table.projectId, table.keyId], foreignColumns: [keys.projectId, keys.id] })
])

/** `keyId` is `*` for the project's own list. */
export const policies = pgTable('policies', {
  projectId: uuid('project_id').notNull().references(() => projects.id),
  keyId: text('key_id').notNull(),
  position: integer('position').notNull(),
  name: text('name').notNull(),
  limit: bigint('limit', { mode: 'number' }).notNull(),
  windowSeconds: integer('window_seconds').notNull(),
  algorithm: text('algorithm', { enum: ['sliding', 'fixed'] }).notNull(),
  partition: text('partition', { enum: ['key', 'project', 'address'] }).notNull(),
  whenStoreIsDown: text('when_store_is_down', { enum: ['local', 'open', 'closed'] }).notNull().default('local')
}, table => [
  primaryKey({ columns: [table.projectId, table.keyId, table.name] })
])

export const auditEvents = pgTable('audit_events', {
  id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
  at: instant('at').notNull().defaultNow(),
  projectId: uuid('project_id'),
  keyId: text('key_id'),
  actorType: text('actor_type').notNull(),
  actorId: text('actor_id').notNull(),
  actorName: text('actor_name').notNull(),
  action: text('action').notNull(),
  requestId: text('request_id').notNull(),
  details: jsonb('details').notNull()
}, table => [
  index('audit_events_by_project').on(table.projectId, table.id)
])

/** A raised version on its way to Redis, and for the hours after: the pages of `/v1/changes`. `keyId` is `*` for the project's own. */
export const outbox = pgTable('outbox', {
  id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
  projectId: uuid('project_id').notNull(),
  keyId: text('key_id').notNull(),
  version: version('version').notNull(),
  /** Ids of rows say nothing about the order of commits; with this and the reader's snapshot no row is missed. */
  xid: xid8('xid').notNull().default(sql`pg_current_xact_id()`),
  createdAt: instant('created_at').notNull().defaultNow(),
  deliveredAt: instant('delivered_at')
}, table => [
  index('outbox_by_xid').on(table.xid),
  index('outbox_undelivered').on(table.id).where(sql`delivered_at IS NULL`),
  index('outbox_delivered').on(table.deliveredAt).where(sql`delivered_at IS NOT NULL`)
])

/** One row: the newest transaction of which rows were pruned. A cursor at or before it may have missed some. */
export const outboxPruned = pgTable('outbox_pruned', {
  only: boolean('only').primaryKey().default(true),
  xid: xid8('xid').notNull()
}, table => [check('outbox_pruned_only', sql`${table.only}`)])
