import { generateId } from '@keygate/api-key'
import type { ChangeContext } from '../audit/audit-log.ts'
import type { Executor } from '../db/database.ts'
import { conflict, keyNotFound, projectNotFound, unacceptable } from '../errors.ts'
import type { Effect, MakeChange } from '../outbox/make-change.ts'
import { faultOfText } from '../text.ts'
import { acceptSettings, type KeySettings } from './accept-settings.ts'
import { transition, type KeyAction } from './lifecycle.ts'
import { findKey, type KeyRow } from './queries.ts'
import { eraseSettings, holdProject, insertKey, raiseKeyVersion, setStatus, updateKey, type RaisedKey } from './repository.ts'
import type { CreateKey, EditKey } from './schemas.ts'
import { addSecret, endRetiring, eraseSecrets, retireSecret, type KeyAddress, type SecretOptions } from './secrets.ts'

export interface KeyCommandParts { makeChange: MakeChange, knownScopes: ReadonlySet<string>, secretOptions: SecretOptions }
export interface ChangedKey { row: KeyRow, effect: Effect }
export interface IssuedKey extends ChangedKey { secret: string }

const defaults: Omit<KeySettings, 'name'> = { description: null, scopes: [], allowedForAll: false, expiresAt: null, allowedHosts: null, policies: null }

/** What an action does beside status and version: `details` go into the audit trail, never a secret among them. */
type Apply<T> = (tx: Executor, key: RaisedKey) => Promise<{ result: T, details: Record<string, unknown> }>

const nothingMore: Apply<undefined> = async () => ({ result: undefined, details: {} })

/** Everything that changes a key. Each is one change: version, rows, audit and outbox, then Redis (`make-change.ts`). */
export function createKeyCommands ({ makeChange, knownScopes, secretOptions }: KeyCommandParts) {
  /** The frame around every change of a key that exists. */
  async function change<T> (context: ChangeContext, address: KeyAddress, action: KeyAction, apply: Apply<T>): Promise<{ result: T, row: KeyRow | undefined, effect: Effect }> {
    const { value, effect } = await makeChange(context, async tx => {
      const key = await raiseKeyVersion(tx, address)
      if (key === undefined) throw keyNotFound()
      const status = transition(key.status, action)
      if (status === 'refused') throw conflict('key_revoked', 'This key is revoked, which is final. Create a new one.')
      if (status !== key.status) await setStatus(tx, key, status)
      const { result, details } = await apply(tx, key)
      const { projectId, keyId, version } = key
      return {
        value: { result, row: await findKey(tx, key) },
        audit: { action: `key.${action}`, projectId, keyId, details },
        raised: [{ projectId, keyId, version }]
      }
    })
    return { ...value, effect }
  }

  async function changeSettings<T> (...call: [ChangeContext, KeyAddress, KeyAction, Apply<T>]): Promise<ChangedKey & { result: T }> {
    const { result, row, effect } = await change(...call)
    if (row === undefined) throw keyNotFound()
    return { result, row, effect }
  }

  return {
    async create (context: ChangeContext, projectId: string, { active = true, ...body }: CreateKey): Promise<IssuedKey> {
      const { value, effect } = await makeChange(context, async tx => {
        const project = await holdProject(tx, projectId)
        if (project === undefined) throw projectNotFound()
        const settings = { ...defaults, name: body.name, ...acceptSettings(body, { now: project.now, knownScopes }) }
        const key = { projectId: project.projectId, keyId: generateId('key') }
        const status = active ? 'active' : 'disabled'
        await insertKey(tx, key, status, context.actor.name, settings)
        const secret = await addSecret(tx, key, secretOptions)
        const row = await findKey(tx, key)
        if (row === undefined) throw keyNotFound()
        return {
          value: { row, secret },
          audit: { action: 'key.create', ...key, details: { status, ...settings } },
          raised: [{ ...key, version: row.version }]
        }
      })
      return { ...value, effect }
    },

    async edit (context: ChangeContext, address: KeyAddress, body: EditKey): Promise<ChangedKey> {
      return await changeSettings(context, address, 'edit', async (tx, key) => {
        const settings = acceptSettings(body, { now: key.now, knownScopes })
        await updateKey(tx, key, settings)
        return { result: undefined, details: { ...settings } }
      })
    },

    async disable (context: ChangeContext, address: KeyAddress): Promise<ChangedKey> {
      return await changeSettings(context, address, 'disable', nothingMore)
    },

    async enable (context: ChangeContext, address: KeyAddress): Promise<ChangedKey> {
      return await changeSettings(context, address, 'enable', nothingMore)
    },

    async rotate (context: ChangeContext, address: KeyAddress, gracePeriodSeconds: number): Promise<IssuedKey> {
      const { result: secret, ...changed } = await changeSettings(context, address, 'rotate', async (tx, key) => {
        await retireSecret(tx, key, gracePeriodSeconds)
        return { result: await addSecret(tx, key, secretOptions), details: { gracePeriodSeconds } }
      })
      return { ...changed, secret }
    },

    async finishRotation (context: ChangeContext, address: KeyAddress): Promise<ChangedKey> {
      return await changeSettings(context, address, 'finishRotation', async (tx, key) => {
        if (!await endRetiring(tx, key)) throw conflict('no_rotation', 'No rotation of this key is running: there is no old secret to end.')
        return { result: undefined, details: {} }
      })
    },

    async revoke (context: ChangeContext, address: KeyAddress, reason: string | undefined): Promise<ChangedKey> {
      const fault = reason === undefined ? undefined : faultOfText(reason)
      if (fault !== undefined) throw unacceptable([{ pointer: '/reason', message: fault }])
      return await changeSettings(context, address, 'revoke', async () => ({ result: undefined, details: { reason: reason ?? null } }))
    },

    /** Leaves a tombstone: the version goes on, so that no gateway's old record can ever match again. */
    async remove (context: ChangeContext, address: KeyAddress): Promise<void> {
      await change(context, address, 'delete', async (tx, key) => {
        await eraseSecrets(tx, key)
        await eraseSettings(tx, key)
        return { result: undefined, details: {} }
      })
    }
  }
}

export type KeyCommands = ReturnType<typeof createKeyCommands>
