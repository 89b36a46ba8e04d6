// Makes the secrets of the compose installation, once: node infra/docker/make-secrets.js [folder]
import { createHash, randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = resolve(process.argv[2] ?? fileURLToPath(new URL('../../.keygate/docker', import.meta.url)))
const shown = relative(process.cwd(), folder) || '.'

const random = () => randomBytes(32).toString('base64url')
const serviceToken = () => `kgs_${random()}`

/** Every permission there is: this installation has one operator, who starts with nothing. */
const allPermissions = [
  'projects:read', 'projects:create', 'projects:update', 'projects:delete',
  'keys:read', 'keys:create', 'keys:update', 'keys:rotate', 'keys:revoke', 'keys:reveal', 'keys:verify',
  'usage:read', 'catalogue:read', 'limits:reset', 'log:read', 'roles:write', 'audit:read',
  'members:write', 'operators:write', 'tokens:write'
]

function secrets () {
  const [postgres, redis, gateway, operator] = [random(), random(), serviceToken(), serviceToken()]
  const redisDigest = createHash('sha256').update(redis).digest('hex')
  return {
    'postgres-password': postgres,
    'database-url': `postgres://keygate:${postgres}@postgres:5432/keygate`,
    // Ours may touch its own keys and nothing that empties or reconfigures the server; the healthcheck may ping.
    'redis.acl': `user default on #${redisDigest} ~kg:* &* +@all -@dangerous +info\nuser health on nopass +ping\n`,
    'redis-url': `redis://default:${redis}@redis:6379`,
    pepper: random(),
    'encryption-key': random(),
    'service-tokens.json': JSON.stringify([
      { name: 'gateway', token: gateway, permissions: ['keys:verify'] },
      { name: 'operator', token: operator, permissions: allPermissions }
    ], null, 2),
    'gateway-token': gateway,
    'operator-token': operator
  }
}

/** Never mounted: for the person who runs this installation. */
const forPeople = ['operator-token']

/** All or nothing: half a set would start, and fail later with a puzzle. */
function write () {
  mkdirSync(dirname(folder), { recursive: true })
  const fresh = mkdtempSync(`${folder}-`) // 0700: the folder is what keeps other people of this machine out
  for (const [name, value] of Object.entries(secrets())) {
    const file = join(fresh, name)
    writeFileSync(file, value, { flag: 'wx' })
    // A container's user is another one than yours, and compose can map neither owner nor mode of a file: alone in the
    // container, the mounted file must be readable by anybody there.
    chmodSync(file, forPeople.includes(name) ? 0o600 : 0o644)
  }
  renameSync(fresh, folder)
}

if (existsSync(folder)) {
  console.log(`Kept the secrets in ${shown}. To make new ones, remove it and the volumes: docker compose down --volumes`)
} else {
  write()
  console.log(`Wrote new secrets to ${shown}. The operator's service token is in ${join(shown, 'operator-token')}.`)
}
