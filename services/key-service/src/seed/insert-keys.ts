import { digestSecret, generateId, generateSecret, hintOf } from '@keygate/api-key'
import { sql, type SQL } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import type { Peppers } from '../vault/peppers.ts'
import type { SeededKey } from './make-key.ts'

/** Where keys go, who made them, and what their secrets are made with. */
export interface Destination { projectId: string, createdBy: string, peppers: Peppers, prefix: string }

/** A seeded key with what only its caller will ever know. */
export interface IssuedKey extends SeededKey { id: string, secret: string }

/** Ids and secrets are drawn at random even for the same `--seed`: a secret that somebody could compute is none. */
export function issue (key: SeededKey, prefix: string): IssuedKey {
  return { ...key, id: generateId('key'), secret: generateSecret(prefix) }
}

/**
 * Inserts whole keys, one statement per table. They go in as the service makes them, sealed, with their first version.
 *
 * Nothing is put into the outbox, and the version counts as effective everywhere: versions reach Redis with changes only. No
 * gateway can hold a record of a key that was not there. Its first `decide` finds no version stored, answers `stale` with the
 * incarnation, and the record that is looked up after that brings the version along with the fence (design.md section 5).
 */
export async function insertKeys (tx: Executor, destination: Destination, issued: IssuedKey[]): Promise<void> {
  const { projectId, createdBy, peppers, prefix } = destination
  await tx.execute(sql`
    INSERT INTO keys (project_id, id, name, description, status, allowed_for_all, expires_at, last_used_at, effective_version, effective_at, created_at, created_by)
    SELECT ${projectId}, id, name, description, status, "allowedForAll", ${time('expiresAt')}, ${time('lastUsedAt')}, 1, ${time('createdAt')}, ${time('createdAt')}, ${createdBy}
    FROM ${recordset(issued)} AS r(id text, name text, description text, status text, "allowedForAll" boolean, "expiresAt" bigint, "lastUsedAt" bigint, "createdAt" bigint)`)
  const secrets = issued.map(({ id, secret, lastUsedAt, createdAt }) => ({
    id: generateId('sec'), keyId: id, hint: hintOf(secret, prefix), lastUsedAt, createdAt, ...peppers.current(digestSecret(secret))
  }))
  await tx.execute(sql`
    INSERT INTO secrets (project_id, key_id, id, digest, pepper_id, hint, state, last_used_at, created_at)
    SELECT ${projectId}, "keyId", id, digest, "pepperId", hint, 'current', ${time('lastUsedAt')}, ${time('createdAt')}
    FROM ${recordset(secrets)} AS r("keyId" text, id text, digest text, "pepperId" text, hint text, "lastUsedAt" bigint, "createdAt" bigint)`)
  await tx.execute(sql`
    INSERT INTO key_scopes (project_id, key_id, scope)
    SELECT ${projectId}, "keyId", scope FROM ${recordset(listed(issued, ({ scopes }) => scopes.map(scope => ({ scope }))))} AS r("keyId" text, scope text)`)
  await tx.execute(sql`
    INSERT INTO allowed_hosts (project_id, key_id, position, host)
    SELECT ${projectId}, "keyId", position, host
    FROM ${recordset(listed(issued, ({ allowedHosts }) => allowedHosts.map(host => ({ host }))))} AS r("keyId" text, position integer, host text)`)
  await tx.execute(sql`
    INSERT INTO policies (project_id, key_id, position, name, "limit", window_seconds, algorithm, partition)
    SELECT ${projectId}, "keyId", position, name, "limit", "windowSeconds", algorithm, partition
    FROM ${recordset(listed(issued, ({ policies }) => policies))} AS r("keyId" text, position integer, name text, "limit" bigint, "windowSeconds" integer, algorithm text, partition text)`)
}

/** As one JSON text: parameters of their own would exceed the 65 535 of a statement. */
function recordset (rows: object[]): SQL {
  return sql`jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)`
}

/** A column of milliseconds as a time; null stays null. */
function time (column: string): SQL {
  return sql`to_timestamp(${sql.identifier(column)} / 1000.0)`
}

/** A row per entry of a list that each key has, with the key it belongs to and its place. */
function listed<T extends object> (issued: IssuedKey[], listOf: (key: IssuedKey) => T[]): Array<T & { keyId: string, position: number }> {
  return issued.flatMap(key => listOf(key).map((entry, position) => ({ ...entry, keyId: key.id, position })))
}
