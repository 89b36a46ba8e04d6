import { sql, type AnyColumn, type SQL } from 'drizzle-orm'

/** Rows of a key's tables, inside a statement over keys `k`. */
export const ofKey = sql`project_id = k.project_id AND key_id = k.id`

export const ownScopes = sql`coalesce((SELECT json_agg(scope ORDER BY scope) FROM key_scopes WHERE ${ofKey}), '[]')`

/** One parameter however many ids there are: with one for each a statement over a thousand keys takes three times as long. */
export const isAmong = (column: AnyColumn | SQL, ids: string[]): SQL => sql`${column} = ANY(${`{${ids.join(',')}}`}::text[])`

/** A moment as every answer writes it. */
const isoTime = (time: SQL) => sql`to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
const runs = (until: SQL) => sql`(${until} IS NULL OR ${until} > now())`

/** `{ all, scopes }`, each with its end or `forever`; what has ended is left out. */
export const runningLogging = sql`json_build_object(
  'all', CASE WHEN k.logged_for_all AND ${runs(sql`k.logged_for_all_until`)} THEN coalesce(${isoTime(sql`k.logged_for_all_until`)}, 'forever') END,
  'scopes', (SELECT coalesce(json_object_agg(l.scope, coalesce(${isoTime(sql`l.until`)}, 'forever') ORDER BY l.scope), '{}')
    FROM key_logging l WHERE l.project_id = k.project_id AND l.key_id = k.id AND ${runs(sql`l.until`)}))`
