import { randomBytes } from 'node:crypto'
import { hash, verify } from '@node-rs/argon2'
import { canonicalPassword } from './password-text.ts'

/** OWASP's first choice for Argon2id, which is the package's default algorithm: 19 MiB, two passes, one lane. */
const cost = { memoryCost: 19_456, timeCost: 2, parallelism: 1 }
const currentHead = `$argon2id$v=19$m=${cost.memoryCost},t=${cost.timeCost},p=${cost.parallelism}$`

/** Of a password that nobody has: what is compared when there is none, so that the answer takes as long. */
const nobodys = hash(randomBytes(32), cost)
nobodys.catch(() => {}) // whoever awaits it is told

/** In PHC format, which carries salt and cost. */
export async function digestPassword (password: string): Promise<string> {
  return await hash(canonicalPassword(password), cost)
}

/** Whether the password is the one with this digest. Null: there is none, which takes the same work and is never right. */
export async function matchesPassword (password: string, digest: string | null): Promise<boolean> {
  const isRight = await verify(digest ?? await nobodys, canonicalPassword(password))
  return isRight && digest !== null
}

/** False for a digest made at another cost: it is made anew when the password is next at hand. */
export function isCurrentDigest (digest: string): boolean {
  return digest.startsWith(currentHead)
}
