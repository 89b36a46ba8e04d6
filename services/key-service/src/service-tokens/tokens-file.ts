import { readFileSync } from 'node:fs'
import { ConfigError } from '@keygate/service-kit'
import { permissions, type Permission } from '../access/permissions.ts'

/** An entry of KEYGATE_SERVICE_TOKENS_FILE. */
export interface TokenEntry { name: string, token: string, permissions: Permission[], projectId: string | null }

const fields = ['name', 'token', 'permissions', 'projectId']
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/**
 * Reads the first service tokens: `[{ "name", "token", "permissions": [...], "projectId"? }]`.
 *
 * @throws {ConfigError} with all faults at once. No fault quotes a token, nor the text around a syntax error, which may hold one.
 */
export function readTokensFile (file: string): TokenEntry[] {
  const fail = (faults: string[]): never => { throw new ConfigError(faults.map(fault => `KEYGATE_SERVICE_TOKENS_FILE (${file}) ${fault}`)) }
  let text = ''
  let list: unknown
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    fail([`cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'}): give the path of a file that this user may read`])
  }
  try {
    list = JSON.parse(text)
  } catch {
    fail(['is not JSON: write [{ "name": "gateway", "token": "kgs_...", "permissions": ["keys:verify"] }]'])
  }
  const { entries, faults } = parseTokens(list)
  if (faults.length > 0) fail(faults)
  return entries
}

/** Judges the parsed file; with faults, `entries` is incomplete. */
export function parseTokens (list: unknown): { entries: TokenEntry[], faults: string[] } {
  if (!Array.isArray(list)) return { entries: [], faults: ['must hold a list: [{ "name", "token", "permissions" }]'] }
  const faults: string[] = []
  const entries = list.flatMap((item: unknown, index) => {
    const found = faultsOf(item)
    faults.push(...found.map(fault => `entry ${index + 1}${label(item)}: ${fault}`))
    if (found.length > 0) return []
    const { name, token, permissions, projectId } = item as TokenEntry
    return [{ name, token, permissions: [...new Set(permissions)], projectId: projectId?.toLowerCase() ?? null }]
  })
  for (const field of ['name', 'token'] as const) {
    for (const [index, entry] of entries.entries()) {
      const first = entries.findIndex(other => other[field] === entry[field])
      if (first < index) faults.push(`entry "${entry.name}" has the same ${field} as an entry before it: give each its own`)
    }
  }
  return { entries, faults }
}

function faultsOf (item: unknown): string[] {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) return ['must be an object with "name", "token" and "permissions"']
  const { name, token, permissions: given, projectId } = item as Record<string, unknown>
  const faults = Object.keys(item).filter(field => !fields.includes(field)).map(field => `"${field}" is not known; there is ${fields.join(', ')}`)
  if (typeof name !== 'string' || !/^[\w.:-]{1,64}$/.test(name)) faults.push('"name" must be 1 to 64 letters, digits or . : _ -')
  if (typeof token !== 'string' || !/^kgs_[\w-]{20,200}$/.test(token)) faults.push('"token" must begin with kgs_ and go on with 20 to 200 random letters, digits, _ or -')
  if (projectId !== undefined && projectId !== null && (typeof projectId !== 'string' || !uuid.test(projectId))) faults.push('"projectId" must be the UUID of a project')
  if (!Array.isArray(given) || given.length === 0) return [...faults, '"permissions" must be a list with at least one permission']
  const unknown = given.filter(permission => !permissions.includes(permission as Permission))
  return unknown.length === 0 ? faults : [...faults, `${unknown.map(permission => JSON.stringify(permission)).join(', ')} is no permission; there is ${permissions.join(', ')}`]
}

function label (item: unknown): string {
  const name = (item as { name?: unknown } | null)?.name
  return typeof name === 'string' && /^[\w.:-]{1,64}$/.test(name) && !name.startsWith('kgs_') ? ` ("${name}")` : ''
}
