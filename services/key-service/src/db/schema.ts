import { sql } from 'drizzle-orm'
import { bigint, boolean, check, foreignKey, index, integer, jsonb, pgTable, primaryKey, text, uniqueIndex, uuid } from 'drizzle-orm/pg-core'
import { instant, version, xid8 } from './columns.ts'

export * from './people-schema.ts'

export const projects = pgTable('projects', {
  id: uuid('id').primaryKey().defaultRandom(),
  name: text('name').notNull(),
  version: version('version').notNull().default(1),
  effectiveVersion: version('effective_version').notNull().default(0),
  effectiveAt: instant('effective_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
  createdBy: text('created_by').notNull(),
  deletedAt: instant('deleted_at'),
  /** Since when nothing of a deleted project is left but tombstones. */
  erasedAt: instant('erased_at')
}, table => [
  index('projects_by_age').on(table.createdAt, table.id).where(sql`deleted_at IS NULL`),
  index('projects_unerased').on(table.id).where(sql`deleted_at IS NOT NULL AND erased_at IS NULL`)
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
  hint: text('hint').notNull().default('kgs_…'),
  /** The person who made it: it carries no more than that person may do, and ends with the rights it rests on. */
  makerId: text('maker_id'),
  /** The token that made it: it ends with that one. */
  parentId: text('parent_id'),
  expiresAt: instant('expires_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
  createdBy: text('created_by').notNull().default('the tokens file')
}, table => [
  // Names of the file are its identity; others are labels, and a project must not learn of another's by a clash.
  uniqueIndex('service_tokens_file_name').on(table.name).where(sql`from_file`),
  uniqueIndex('service_tokens_digest').on(table.digest),
  index('service_tokens_by_age').on(table.createdAt, table.id),
  index('service_tokens_by_maker').on(table.makerId),
  index('service_tokens_by_parent').on(table.parentId),
  foreignKey({ name: 'service_tokens_parent', columns: [table.parentId], foreignColumns: [table.id] }).onDelete('cascade')
])

/** A named set of scopes that keys can be bound to. Its changes raise the project's version. */
export const roles = pgTable('roles', {
  projectId: uuid('project_id').notNull().references(() => projects.id),
  id: text('id').notNull(),
  name: text('name').notNull(),
  description: text('description'),
  version: version('version').notNull().default(1),
  createdAt: instant('created_at').notNull().defaultNow(),
  createdBy: text('created_by').notNull()
}, table => [
  primaryKey({ columns: [table.projectId, table.id] }),
  uniqueIndex('roles_name').on(table.projectId, table.name)
])

export const roleScopes = pgTable('role_scopes', { projectId: uuid('project_id').notNull(), roleId: text('role_id').notNull(), scope: text('scope').notNull() }, table => [
  primaryKey({ columns: [table.projectId, table.roleId, table.scope] }),
  foreignKey({ name: 'role_scopes_role', columns: [table.projectId, table.roleId], foreignColumns: [roles.projectId, roles.id] })
])

export const keys = pgTable('keys', {
  projectId: uuid('project_id').notNull().references(() => projects.id),
  id: text('id').notNull(),
  name: text('name').notNull(),
  description: text('description'),
  /** `expired` is no status of its own: time decides it, no row has to be touched for it. */
  status: text('status', { enum: ['active', 'disabled', 'revoked', 'deleted'] }).notNull(),
  allowedForAll: boolean('allowed_for_all').notNull(),
  /** The role whose scopes count beside the key's own. */
  roleId: text('role_id'),
  /** Logged for all scopes; until when, if there is an end. */
  loggedForAll: boolean('logged_for_all').notNull().default(false),
  loggedForAllUntil: instant('logged_for_all_until'),
  /** Its secrets cannot be shown again: no ciphertext is kept. */
  sealed: boolean('sealed').notNull().default(true),
  expiresAt: instant('expires_at'),
  /** In steps of a minute: when a request was last admitted with any of its secrets. */
  lastUsedAt: instant('last_used_at'),
  /** What is searched, in one column for one index. The separator can stand in neither part. */
  searchText: text('search_text').generatedAlwaysAs(sql`name || E'\\x1f' || coalesce(description, '')`),
  version: version('version').notNull().default(1),
  /** The highest version that Redis has confirmed, and since when by Redis's clock. */
  effectiveVersion: version('effective_version').notNull().default(0),
  effectiveAt: instant('effective_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
  createdBy: text('created_by').notNull()
}, table => [
  primaryKey({ columns: [table.projectId, table.id] }),
  // An id is unique over the installation: it is named in logs and metrics without its project.
  uniqueIndex('keys_id').on(table.id),
  foreignKey({ name: 'keys_role', columns: [table.projectId, table.roleId], foreignColumns: [roles.projectId, roles.id] }),
  index('keys_by_age').on(table.projectId, table.createdAt, table.id).where(sql`status <> 'deleted'`),
  index('keys_by_name').on(table.projectId, table.name, table.id).where(sql`status <> 'deleted'`),
  // Not partial: of a partial index PostgreSQL does not use the expression's statistics, and takes every prefix for equally rare.
  index('keys_by_name_prefix').on(table.projectId, sql`lower(name) text_pattern_ops`),
  index('keys_by_status').on(table.projectId, table.status, table.createdAt, table.id).where(sql`status <> 'deleted'`),
  index('keys_by_expiry').on(table.projectId, table.expiresAt, table.id).where(sql`status <> 'deleted'`),
  index('keys_by_use').on(table.projectId, table.lastUsedAt, table.id).where(sql`status <> 'deleted'`),
  index('keys_by_role').on(table.projectId, table.roleId).where(sql`role_id IS NOT NULL`),
  // Without the list of pending entries, which every search would read as a whole until the next vacuum.
  index('keys_search').using('gin', table.projectId, sql`search_text gin_trgm_ops`).with({ fastupdate: false }).where(sql`status <> 'deleted'`),
  check('keys_status', sql`${table.status} IN ('active', 'disabled', 'revoked', 'deleted')`)
])

const keyReference = { projectId: uuid('project_id').notNull(), keyId: text('key_id').notNull() }

export const secrets = pgTable('secrets', {
  ...keyReference,
  id: text('id').primaryKey(),
  /** HMAC-SHA256(pepper, sha256(secret)), base64url. */
  digest: text('digest').notNull(),
  /** Which pepper. */
  pepperId: text('pepper_id').notNull().default('1'),
  /** For showing it again; null: sealed. Which key it is under stands apart so that it can be asked for. */
  ciphertext: text('ciphertext'),
  encryptionKeyId: text('encryption_key_id'),
  hint: text('hint').notNull(),
  state: text('state', { enum: ['current', 'retiring'] }).notNull(),
  /** End of a rotation's grace. */
  notAfter: instant('not_after'),
  /** When the rotation was that retires it. */
  retiredAt: instant('retired_at'),
  lastUsedAt: instant('last_used_at'),
  createdAt: instant('created_at').notNull().defaultNow()
}, table => [
  index('secrets_by_encryption_key').on(table.encryptionKeyId).where(sql`encryption_key_id IS NOT NULL`),
  index('secrets_by_pepper').on(table.pepperId),
  foreignKey({ name: 'secrets_key', columns: [table.projectId, table.keyId], foreignColumns: [keys.projectId, keys.id] }),
  uniqueIndex('secrets_digest').on(table.digest),
  // At most two secrets per key: one current, one retiring. The database holds it even if two rotations should ever meet.
  uniqueIndex('secrets_state').on(table.projectId, table.keyId, table.state),
  // The few that rotations retire. Not by their last use, which is written often and would then move the index each time.
  index('secrets_retiring').on(table.projectId, table.keyId).where(sql`state = 'retiring'`),
  check('secrets_not_after', sql`(${table.state} = 'retiring') = (${table.notAfter} IS NOT NULL)`)
])

/** By what a pepper or an encryption key is known again (`src/vault/check-values.ts`). */
export const keyChecks = pgTable('key_checks', { kind: text('kind', { enum: ['pepper', 'encryption-key'] }).notNull(), id: text('id').notNull(), value: text('value').notNull() }, table => [
  primaryKey({ columns: [table.kind, table.id] }),
  check('key_checks_kind', sql`${table.kind} IN ('pepper', 'encryption-key')`)
])

export const keyScopes = pgTable('key_scopes', { ...keyReference, scope: text('scope').notNull() }, table => [
  primaryKey({ columns: [table.projectId, table.keyId, table.scope] }),
  foreignKey({ name: 'key_scopes_key', columns: [table.projectId, table.keyId], foreignColumns: [keys.projectId, keys.id] })
])

/** Scopes of a key whose requests are written down; `until` null: without end. */
export const keyLogging = pgTable('key_logging', { ...keyReference, scope: text('scope').notNull(), until: instant('until') }, table => [
  primaryKey({ columns: [table.projectId, table.keyId, table.scope] }),
  foreignKey({ name: 'key_logging_key', columns: [table.projectId, table.keyId], foreignColumns: [keys.projectId, keys.id] })
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

/** The end of each chain of audit events: one per project, and `installation` for what belongs to none. */
export const auditChains = pgTable('audit_chains', {
  chain: text('chain').primaryKey(),
  seq: version('seq').notNull(),
  hash: text('hash').notNull()
})

export const auditEvents = pgTable('audit_events', {
  id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
  /** Its place in its chain; null: written before there were chains. */
  chain: text('chain'),
  seq: version('seq'),
  /** Over the event and the hash before it, base64url (`src/audit/chain.ts`). */
  hash: text('hash'),
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
  index('audit_events_by_project').on(table.projectId, table.id),
  // For filters by something rare, which would otherwise read far along the order.
  index('audit_events_by_key').on(table.projectId, table.keyId, table.id).where(sql`key_id IS NOT NULL`),
  index('audit_events_by_action').on(table.projectId, sql`action text_pattern_ops`, table.id),
  index('audit_events_by_actor').on(table.projectId, table.actorId, table.id),
  uniqueIndex('audit_events_chain').on(table.chain, table.seq)
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

/** Answers to requests that bore an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), for whoever asks again. */
export const idempotencyKeys = pgTable('idempotency_keys', {
  /** Of caller, operation, project and the header: the same text of somebody else is another one. */
  digest: text('digest').primaryKey(),
  /** Of what was asked: another body under the same key is refused. */
  fingerprint: text('fingerprint').notNull(),
  projectId: uuid('project_id').notNull(),
  keyId: text('key_id').notNull(),
  status: integer('status').notNull(),
  /** The first answer, without its secret. */
  body: jsonb('body').notNull(),
  /** The answer's secret, for the first fifteen minutes. */
  secretCiphertext: text('secret_ciphertext'),
  encryptionKeyId: text('encryption_key_id'),
  createdAt: instant('created_at').notNull().defaultNow()
}, table => [
  index('idempotency_keys_by_age').on(table.createdAt),
  index('idempotency_keys_by_key').on(table.projectId, table.keyId).where(sql`secret_ciphertext IS NOT NULL`)
])
