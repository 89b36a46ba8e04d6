import { digestSecret, hintOf, isDigest, matchesImportForm, type ImportForm } from '@keygate/api-key'
import type { FieldError } from '@keygate/service-kit'
import type { CreateKey } from './schemas.ts'

/** A secret of another system; of one that is given by its digest nobody here knows the text. */
export interface ImportedSecret { digest: string, plaintext: string | null, hint: string }

export interface ImportRules { forms: readonly ImportForm[], prefix: string }

/** @returns the secret or what is wrong; no message quotes what was sent. */
export function acceptImport ({ secret, digest }: NonNullable<CreateKey['import']>, { forms, prefix }: ImportRules): ImportedSecret | FieldError {
  const pointer = secret === undefined ? '/import/digest' : '/import/secret'
  if (forms.length === 0) return { pointer, message: 'cannot be taken over: this installation enables no form (KEYGATE_IMPORT_FORMS)' }
  if (secret === undefined) {
    if (digest === undefined || !isDigest(digest)) return { pointer, message: 'must be a SHA-256 in base64url, 43 characters' }
    return { digest, plaintext: null, hint: '…' }
  }
  // Whatever begins so is ours, or was made up: a gateway would refuse it by its checksum without asking.
  if (secret.startsWith(`${prefix}_`)) return { pointer, message: `must not begin with "${prefix}_", which is how secrets of this installation begin` }
  if (!matchesImportForm(secret, forms)) return { pointer, message: `must have one of the forms that this installation takes over: ${forms.join(', ')}` }
  return { digest: digestSecret(secret), plaintext: secret, hint: hintOf(secret, prefix) }
}
