import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { checkOf, type KeyCheck } from './check-values.ts'
import type { EncryptionKeys } from './keyring.ts'

/** What a ciphertext is for. Under any other purpose it cannot be decrypted, so it is of no use beside another key or in another place. */
export interface Purpose { projectId: string, keyId: string, use: 'secret' | 'replay' }

/** `no-key`: the key it is under is not configured. `damaged`: it is not what was once encrypted for this purpose. */
export type Decrypted = { plaintext: string } | { cannot: 'no-key' | 'damaged' }

export interface Vault {
  /** Of the key that encrypts. */
  readonly currentId: string
  /** Of every key that decrypts, the current one first. */
  readonly ids: readonly string[]
  /** Of every key that decrypts, the current one first. */
  readonly checks: readonly KeyCheck[]
  /** `v1:<key id>:<nonce>:<ciphertext>:<tag>`, the last three in base64url. */
  encrypt: (plaintext: string, purpose: Purpose) => string
  /** Never throws, and never gives text that was not encrypted for this purpose. */
  decrypt: (text: string, purpose: Purpose) => Decrypted
}

const algorithm = 'aes-256-gcm'
const format = 'v1'
// Random nonces of 96 bits are good for 2^32 encryptions under one key (NIST SP 800-38D, 8.3).
const [nonceBytes, tagBytes] = [12, 16]

/** Keeps secrets so that they can be shown again, and by nobody who has the database alone. */
export function createVault ({ current, previous }: EncryptionKeys): Vault {
  const keys = new Map([current, ...previous].map(({ id, value }) => [id, value]))
  return {
    currentId: current.id,
    ids: [...keys.keys()],
    checks: [current, ...previous].map(key => checkOf('encryption-key', key)),
    encrypt: (plaintext, purpose) => {
      const nonce = randomBytes(nonceBytes)
      const cipher = createCipheriv(algorithm, current.value, nonce, { authTagLength: tagBytes }).setAAD(boundTo(current.id, purpose))
      const ciphertext = Buffer.concat([cipher.update(plaintext, 'utf8'), cipher.final()])
      return [format, current.id, ...[nonce, ciphertext, cipher.getAuthTag()].map(part => part.toString('base64url'))].join(':')
    },
    decrypt: (text, purpose) => {
      const parts = takeApart(text)
      if (parts === undefined) return { cannot: 'damaged' }
      const key = keys.get(parts.id)
      if (key === undefined) return { cannot: 'no-key' }
      const decipher = createDecipheriv(algorithm, key, parts.nonce, { authTagLength: tagBytes }).setAAD(boundTo(parts.id, purpose)).setAuthTag(parts.tag)
      const start = decipher.update(parts.ciphertext)
      try {
        return { plaintext: Buffer.concat([start, decipher.final()]).toString('utf8') }
      } catch { // the tag does not fit
        return { cannot: 'damaged' }
      }
    }
  }
}

/** The additional authenticated data. As JSON, so that no two lists of parts give the same bytes. */
function boundTo (id: string, { projectId, keyId, use }: Purpose): Buffer {
  return Buffer.from(JSON.stringify([format, id, use, projectId, keyId]))
}

interface Parts { id: string, nonce: Buffer, ciphertext: Buffer, tag: Buffer }

function takeApart (text: string): Parts | undefined {
  const [version, id, ...encoded] = text.split(':')
  if (version !== format || id === undefined || encoded.length !== 3) return undefined
  const [nonce, ciphertext, tag] = encoded.map(decodeExactly) as [Buffer | undefined, Buffer | undefined, Buffer | undefined]
  if (nonce?.length !== nonceBytes || ciphertext === undefined || tag?.length !== tagBytes) return undefined
  return { id, nonce, ciphertext, tag }
}

/** Only the one spelling: Buffer itself skips what it does not know, and the last bits. */
function decodeExactly (text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}
