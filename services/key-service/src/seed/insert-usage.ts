import { sql, type SQL } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { wholeProject } from '../usage/columns.ts'
import type { Partitioned } from '../usage/partitions.ts'
import type { Chunk } from './usage-chunks.ts'
import { daysBetween, hoursBetween, type Beat } from './usage-profile.ts'

/** Whose rows, and up to which moment (Unix milliseconds). `strands` as JSON: it is the same for every chunk. */
export interface UsageSource { projectId: string, strands: string, nowMs: number }

/** Rows that were written. */
export interface UsageRows { days: number, hours: number, minutes: number, callers: number, log: number }

/**
 * Writes all rows of a chunk's days in one statement: PostgreSQL draws the finest sums that are kept and adds up the coarser ones from
 * these, and the project's from those of its keys. Nothing travels but what keys do (`strands`) and the rhythm.
 */
export async function insertUsage (tx: Executor, source: UsageSource, chunk: Chunk): Promise<UsageRows> {
  const { projectId, strands, nowMs } = source
  const beats = (chunk.finest === 'day' ? daysBetween : hoursBetween)(chunk.from, chunk.until, nowMs)
  const isOfMinutes = chunk.finest === 'minute'
  const finest = { day: ofDays(), hour: ofHours(), minute: ofMinutes(nowMs) }[chunk.finest]
  const parts: SQL[] = [
    sql`strand AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(${strands}::jsonb) AS s(place int, seed bigint, "keyId" text, "secretId" text, api text, operation text, method text, scope text, pace float8, hours float8, minutes float8, callers int, logged boolean))`,
    sql`beat AS MATERIALIZED (${beatsOf(beats)})`,
    sql`drawn AS (${finest})`,
    sql`counted AS MATERIALIZED (${counted})`
  ]
  const sums: SQL[] = []
  if (isOfMinutes) {
    parts.push(sql`minute AS MATERIALIZED (SELECT ${sumColumns} FROM counted)`, sql`hour AS MATERIALIZED (${addedUp('minute', 'hour')})`, sql`day AS MATERIALIZED (${addedUp('hour', 'day')})`)
    sums.push(put(projectId, 'minute', 'usage_minutes'), put(projectId, 'hour', 'usage_hours'), put(projectId, 'day', 'usage_days'), putCallers(projectId), putLog(projectId))
  } else if (chunk.finest === 'hour') {
    parts.push(sql`hour AS MATERIALIZED (SELECT ${sumColumns} FROM counted)`, sql`day AS MATERIALIZED (${addedUp('hour', 'day')})`)
    sums.push(put(projectId, 'hour', 'usage_hours'), put(projectId, 'day', 'usage_days'))
  } else {
    parts.push(sql`day AS MATERIALIZED (SELECT ${sumColumns} FROM counted)`)
    sums.push(put(projectId, 'day', 'usage_days'))
  }
  const none = sql`0`
  const written = (name: string): SQL => sql`(SELECT count(*) FROM ${sql.identifier(`put_${name}`)})`
  const [row] = await tx.execute<Record<keyof UsageRows, string>>(sql`
    WITH ${sql.join([...parts, ...sums], sql`, `)}
    SELECT ${written('usage_days')} AS days, ${chunk.finest === 'day' ? none : written('usage_hours')} AS hours, ${isOfMinutes ? written('usage_minutes') : none} AS minutes,
      ${isOfMinutes ? written('callers') : none} AS callers, ${isOfMinutes ? written('log') : none} AS log`)
  if (row === undefined) throw new Error('the insert returned no row')
  return { days: Number(row.days), hours: Number(row.hours), minutes: Number(row.minutes), callers: Number(row.callers), log: Number(row.log) }
}

function beatsOf (beats: Beat[]): SQL {
  return sql`SELECT * FROM jsonb_to_recordset(${JSON.stringify(beats)}::jsonb) AS b(slot bigint, rhythm float8)`
}

/**
 * A draw from 0 to below 2^20, the same for the same strand, place in time and purpose. The strand goes into the hash's seed: hashint8 alone
 * takes one half of a number exclusive-or the other, and strands would repeat each other.
 */
function draw (slot: SQL, purpose: number): SQL {
  return sql`(hashint8extended(${slot}, s.seed * 16 + ${purpose}::int) & 1048575)`
}

function chance (slot: SQL, purpose: number): SQL {
  return sql`(${draw(slot, purpose)} / 1048576.0::float8)`
}

const slot = sql`b.slot`
/** Minutes of an hour in use, and hours of a day, as expected. */
const minutesOfHour = sql`(1 + 59 * s.minutes)`
const hoursOfDay = sql`(1 + 23 * least(1, s.hours))`

/** Each strand, each day. */
function ofDays (): SQL {
  return sql`SELECT s.*, b.slot, b.rhythm * ${minutesOfHour} * ${hoursOfDay} AS share, to_timestamp(b.slot * 86400) AS at FROM strand s CROSS JOIN beat b`
}

/** The hours in use: one in the middle of each day, and others by chance. */
const isInUse = sql`(b.slot % 24 = 8 + ${draw(sql`b.slot / 24`, 1)} % 9 OR ${chance(slot, 2)} < s.hours * b.rhythm)`

function ofHours (): SQL {
  return sql`SELECT s.*, b.slot, b.rhythm * ${minutesOfHour} AS share, to_timestamp(b.slot * 3600) AS at FROM strand s CROSS JOIN beat b WHERE ${isInUse}`
}

function ofMinutes (nowMs: number): SQL {
  const minute = sql`m.minute`
  return sql`
    SELECT s.*, m.minute AS slot, b.rhythm AS share, to_timestamp(m.minute * 60) AS at
    FROM strand s CROSS JOIN beat b CROSS JOIN LATERAL generate_series(b.slot * 60, b.slot * 60 + 59) AS m(minute)
    WHERE ${isInUse} AND m.minute <= ${Math.floor(nowMs / 60_000)}::bigint AND (m.minute % 60 = ${draw(slot, 3)} % 60 OR ${chance(minute, 4)} < s.minutes)`
}

/** What became of the requests. Most of the time all is well. */
const counted = sql`
  SELECT s.*, requests AS admitted,
    CASE WHEN ${draw(sql`s.slot`, 6)} % 29 = 0 THEN 1 + requests / 4 ELSE 0 END AS limited,
    CASE WHEN ${draw(sql`s.slot`, 7)} % 53 = 0 THEN 1 + requests / 20 ELSE 0 END AS refused,
    CASE WHEN ${draw(sql`s.slot`, 8)} % 41 = 0 THEN least(requests, 1 + requests / 50) ELSE 0 END AS upstream_errors,
    CASE WHEN ${draw(sql`s.slot`, 9)} % 997 = 0 THEN requests / 3 ELSE 0 END AS admitted_locally
  FROM (SELECT s.*, ceil(s.pace * s.share * (0.25 + 1.5 * ${chance(sql`s.slot`, 5)}))::bigint AS requests FROM drawn s) s`

const sumColumns = sql`"keyId" AS key_id, at, api, operation, scope, admitted, limited, refused, upstream_errors, admitted_locally`
const names = sql`key_id, at, api, operation, scope, admitted, limited, refused, upstream_errors, admitted_locally`
const total = sql`sum(admitted)::bigint AS admitted, sum(limited)::bigint AS limited, sum(refused)::bigint AS refused, sum(upstream_errors)::bigint AS upstream_errors, sum(admitted_locally)::bigint AS admitted_locally`

function addedUp (of: 'minute' | 'hour', into: 'hour' | 'day'): SQL {
  return sql`SELECT key_id, date_trunc(${into}::text, at, 'UTC') AS at, api, operation, scope, ${total} FROM ${sql.identifier(of)} GROUP BY 1, 2, 3, 4, 5`
}

/** The keys' rows and the project's, in the order in which gateways would have brought them. */
function put (projectId: string, from: 'minute' | 'hour' | 'day', table: Partitioned): SQL {
  const rows = sql.identifier(from)
  return sql`${sql.identifier(`put_${table}`)} AS (
    INSERT INTO ${sql.identifier(table)} (project_id, ${names})
    SELECT ${projectId}::uuid, ${names} FROM (
      SELECT ${names} FROM ${rows}
      UNION ALL SELECT ${wholeProject}::text AS key_id, at, api, operation, scope, ${total} FROM ${rows} GROUP BY 2, 3, 4, 5
    ) r ORDER BY at, key_id, operation RETURNING 1)`
}

const clients = sql`(ARRAY['curl', 'python-requests', 'okhttp', 'node', 'Java-http-client', 'PowerBI', 'axios'])`

/** Each hour of a key is one caller's; so a caller comes and goes. Addresses are private ones (RFC 1918). */
const caller = (hour: SQL): SQL => sql`(hashint8extended(${hour}, s.place::bigint) & 1048575) % s.callers`
const addressOf = (number: SQL): SQL => sql`'10.' || s.place / 256 % 256 || '.' || s.place % 256 || '.' || 1 + ${number}`
const clientOf = (number: SQL): SQL => sql`${clients}[1 + (s.place + ${number}) % 7]`

function putCallers (projectId: string): SQL {
  const hour = sql`s.slot / 60`
  return sql`put_callers AS (
    INSERT INTO usage_callers (project_id, key_id, address, client, secret_id, hour, count, last_seen)
    SELECT ${projectId}::uuid, "keyId", address, client, "secretId", to_timestamp(hour * 3600), sum(requests), max(at) + interval '59 seconds' FROM (
      SELECT s."keyId", s."secretId", ${addressOf(caller(hour))} AS address, ${clientOf(caller(hour))} AS client, ${hour} AS hour, s.admitted + s.limited + s.refused AS requests, s.at
      FROM counted s WHERE s.callers > 0
    ) c GROUP BY "keyId", address, client, "secretId", hour RETURNING 1)`
}

/** At most two of a minute's admitted requests, and one limited and one refused if there were any. */
function putLog (projectId: string): SQL {
  const number = sql`(s.slot * 4 + n.n)`
  const hour = sql`s.slot / 60`
  return sql`put_log AS (
    INSERT INTO request_log (at, project_id, key_id, secret_id, request_id, api, operation, method, scope, outcome, code, status, ms, bytes, address, client, replica)
    SELECT s.at + (${draw(number, 10)} % 60000) * interval '1 millisecond' AS at, ${projectId}::uuid, s."keyId", s."secretId", 'req_seed_' || to_hex(s.seed) || to_hex(${number}), s.api, s.operation, s.method, s.scope,
      CASE n.n WHEN 0 THEN CASE WHEN s.upstream_errors > 0 THEN 'upstream_error' ELSE 'admitted' END WHEN 1 THEN 'admitted' WHEN 2 THEN 'limited' ELSE 'refused' END,
      CASE n.n WHEN 2 THEN 'limited' WHEN 3 THEN 'scope_missing' END,
      CASE n.n WHEN 0 THEN CASE WHEN s.upstream_errors > 0 THEN 502 ELSE 200 END WHEN 1 THEN 200 WHEN 2 THEN 429 ELSE 403 END,
      CASE WHEN n.n < 2 THEN 3 + ${draw(number, 11)} % 400 ELSE 1 END, CASE WHEN n.n < 2 THEN ${draw(number, 12)} % 50000 ELSE 0 END,
      ${addressOf(sql`(CASE WHEN s.callers = 0 THEN 0 ELSE (hashint8extended(${hour}, s.place::bigint) & 1048575) % greatest(1, s.callers) END)`)}, 'curl', 'gateway-' || s.place % 3
    FROM counted s CROSS JOIN generate_series(0, 3) AS n(n)
    WHERE s.logged AND CASE n.n WHEN 2 THEN s.limited > 0 WHEN 3 THEN s.refused > 0 ELSE s.admitted > n.n END
    ORDER BY 1 RETURNING 1)`
}
