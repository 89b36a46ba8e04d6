import { randomBytes } from 'node:crypto'
import type { RedisConnection } from './connection.ts'
import { versionsKey } from './names.ts'
import { defineScript, runScript } from './script.ts'

/**
 * Raises versions where greater; a lower or equal one changes nothing, so deliveries may repeat and overtake each other. Returns when that was.
 * KEYS: versions hash. ARGV: a fresh incarnation, then field and version in turn.
 * Fields are never removed and the hash has no expiry: a forgotten version could let a revoked key pass.
 */
const raiseScript = defineScript(`#!lua
redis.call('HSETNX', KEYS[1], '#', ARGV[1])
for i = 2, #ARGV, 2 do
  local stored = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or nil)
  if not stored or stored < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
local now = redis.call('TIME')
return now[1] * 1000 + math.floor(now[2] / 1000)
`)

/**
 * Makes new versions known to every gateway: from its return on, no decision rests on an older one.
 *
 * @param versions by key id, or `*` for the project's own.
 * @returns since when, in Unix milliseconds of Redis's clock: the one by which requests are decided and usage is booked.
 * @throws {StoreUnavailableError} Redis cannot answer; the caller keeps the versions and delivers them later.
 */
export async function raiseVersions (connection: RedisConnection, projectId: string, versions: Record<string, number>): Promise<number> {
  const args = Object.entries(versions).flatMap(([field, version]) => [field, version])
  return Number(await runScript(connection, raiseScript, [versionsKey(projectId)], [randomBytes(16).toString('base64url'), ...args]))
}
