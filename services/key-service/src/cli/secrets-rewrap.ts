import { ConfigError } from '@keygate/service-kit'
import { recordAudit } from '../audit/audit-log.ts'
import { takeStock, type Use } from '../vault/ciphertexts.ts'
import { dropLostPeppers, findUnfit } from '../vault/keys-fit.ts'
import { createPeppers } from '../vault/peppers.ts'
import { rewrapOnce, type RewrapParts, type Undecryptable } from '../vault/rewrap.ts'
import { createVault } from '../vault/vault.ts'
import type { Command, Tools } from './command.ts'
import { columns } from './help.ts'
import { startProgress } from './progress.ts'

interface Outcome { rewrapped: number, undecryptable: Undecryptable[] }

/** So many of those that cannot be decrypted are named. */
const mostNamed = 20

/** After `KEYGATE_ENCRYPTION_KEY` or `KEYGATE_PEPPER` was replaced: brings what is stored under the new one. */
export const secretsRewrap: Command = {
  name: 'secrets rewrap',
  summary: 'Encrypts every stored secret under the current encryption key and digests it under the current pepper. Run it with every pepper that is not lost: what is remembered of others is forgotten. The service may run meanwhile; after an interruption run it again.',
  run: async tools => {
    const { config, database, context, print, err } = tools
    if (config.encryptionKeys === undefined) throw new ConfigError(['KEYGATE_ENCRYPTION_KEY is missing: without it there is no key to encrypt under'])
    const parts = { database, context, vault: createVault(config.encryptionKeys), peppers: createPeppers(config.peppers) }
    await refuseUnfit(parts)
    const { rewrapped, undecryptable } = await rewrapAll(parts, tools)
    await forgetLostPeppers(parts)
    const current = { encryptionKeyId: parts.vault.currentId, pepperId: parts.peppers.currentId }
    const { ciphertexts, due, sealedUnderOldPepper } = await database.run(async db => await takeStock(db, current))
    const noKey = undecryptable.filter(({ cannot }) => cannot === 'no-key').length
    const late = Math.max(0, due - undecryptable.length)
    for (const line of columns([
      ['rewrapped', `${rewrapped}`],
      ['already current', `${Math.max(0, ciphertexts - due - rewrapped)}`],
      ['cannot be decrypted, their key is not configured', `${noKey}`],
      ['cannot be decrypted, damaged', `${undecryptable.length - noKey}`],
      ['sealed under an old pepper, move when they are used', `${sealedUnderOldPepper}`],
      ...late > 0 ? [['stored under an old key meanwhile: run it again', `${late}`] as const] : []
    ])) print(line)
    for (const { projectId, keyId, encryptionKeyId, cannot } of undecryptable.slice(0, mostNamed)) err.write(`${keyId} of project ${projectId}: ${cannot === 'no-key' ? `the key "${encryptionKeyId}" is not configured` : 'damaged'}\n`)
    if (undecryptable.length > mostNamed) err.write(`and ${undecryptable.length - mostNamed} more\n`)
    return undecryptable.length + late > 0 ? 1 : 0
  }
}

async function rewrapAll (parts: RewrapParts, { database, err }: Tools): Promise<Outcome> {
  const { due } = await database.run(async db => await takeStock(db, { encryptionKeyId: parts.vault.currentId, pepperId: parts.peppers.currentId }))
  const progress = startProgress(err, due, 'secrets')
  try {
    const [secrets, replays] = [await rewrapUse(parts, 'secret', progress.add), await rewrapUse(parts, 'replay', progress.add)]
    return { rewrapped: secrets.rewrapped + replays.rewrapped, undecryptable: [...secrets.undecryptable, ...replays.undecryptable] }
  } finally {
    progress.stop()
  }
}

/** As at the service's start: what is brought under another value of a known id, no service could read. An id may be missing here. */
async function refuseUnfit ({ database, vault, peppers }: RewrapParts): Promise<void> {
  await database.transaction(async tx => {
    const faults = await findUnfit(tx, vault, peppers)
    if (faults.length > 0) throw new ConfigError(faults)
  })
}

/** One that is not configured even now is lost or done with; what is still sealed under it is found by nobody, and needs a start that is not refused. */
async function forgetLostPeppers ({ database, context, peppers }: RewrapParts): Promise<void> {
  await database.transaction(async tx => {
    const forgotten = await dropLostPeppers(tx, peppers)
    if (forgotten.length > 0) await recordAudit(tx, context, { action: 'pepper.forget', projectId: null, keyId: null, details: { pepperIds: forgotten } })
  })
}

/** Passes until nothing was changed by somebody else in between. */
async function rewrapUse (parts: RewrapParts, use: Use, onDone: (ciphertexts: number) => void): Promise<Outcome> {
  let rewrapped = 0
  for (;;) {
    const { renewed, missed, undecryptable } = await rewrapOnce(parts, use, onDone)
    rewrapped += renewed
    if (missed === 0) return { rewrapped, undecryptable }
  }
}
