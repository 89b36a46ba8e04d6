import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LocalError } from './local-error.ts'
import { writePrivate } from './write-file.ts'

/** Every permission there is (design.md section 8): what the service token of a local run may do. */
export const allPermissions = [
  'projects:read', 'keys:read', 'usage:read', 'catalogue:read',
  'keys:create', 'keys:update', 'keys:rotate', 'keys:revoke', 'keys:reveal',
  'limits:reset', 'log:read', 'roles:write', 'audit:read',
  'members:write', 'projects:update', 'projects:delete',
  'projects:create', 'operators:write', 'tokens:write', 'keys:verify'
] as const

export interface Secrets {
  pepperFile: string
  encryptionKeyFile: string
  tokensFile: string
  tokens: { operator: string, gateway: string }
}

/** The secrets of a local installation in `dir`: made once, readable by their owner only, kept from then on. */
export function localSecrets (dir: string): Secrets {
  const pepperFile = join(dir, 'pepper')
  const encryptionKeyFile = join(dir, 'encryption-key')
  const tokensFile = join(dir, 'service-tokens.json')
  if (!existsSync(pepperFile)) writePrivate(pepperFile, randomBytes(32).toString('base64url') + '\n')
  if (!existsSync(encryptionKeyFile)) writePrivate(encryptionKeyFile, randomBytes(32).toString('base64') + '\n')
  if (!existsSync(tokensFile)) {
    writePrivate(tokensFile, JSON.stringify([
      { name: 'gateway', token: serviceToken(), permissions: ['keys:verify'] },
      { name: 'operator', token: serviceToken(), permissions: allPermissions }
    ], null, 2) + '\n')
  }
  const list = JSON.parse(readFileSync(tokensFile, 'utf8')) as Array<{ name: string, token: string }>
  const find = (name: string) => {
    const token = list.find(entry => entry.name === name)?.token
    if (token === undefined) throw new LocalError(`${tokensFile} holds no token named ${name}. Remove the folder ${dir}; the tokens are made anew.`)
    return token
  }
  return { pepperFile, encryptionKeyFile, tokensFile, tokens: { operator: find('operator'), gateway: find('gateway') } }
}

/** A fresh service token: 256 random bits. */
export function serviceToken (): string {
  return `kgs_${randomBytes(32).toString('base64url')}`
}
