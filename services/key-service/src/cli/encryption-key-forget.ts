import { recordAudit } from '../audit/audit-log.ts'
import { ciphertextsOf, countUnder } from '../vault/ciphertexts.ts'
import { dropCheck } from '../vault/keys-fit.ts'
import { UsageError, type Command, type Tools } from './command.ts'
import { hint } from './help.ts'
import { countServiceSessions } from './service-sessions.ts'

/** Ciphertexts per transaction. */
const batchSize = 500

const evenIfRunning = 'even-if-running'

/** The way out when an encryption key is lost: what is under it can never be shown again, and nothing else suffers. */
export const encryptionKeyForget: Command = {
  name: 'encryption-key forget',
  summary: 'Drops all that is encrypted under a lost key. The keys of your users go on working; they become sealed, their secrets can never be shown again. Refused while a service is connected to the database: it may have the key as its current one.',
  args: ['id'],
  options: {
    yes: { type: 'boolean', summary: 'do it; without this it only says how many secrets are concerned' },
    [evenIfRunning]: { type: 'boolean', summary: 'although a service is connected: when every replica has been restarted with another current key' }
  },
  run: async (tools, { args, options }) => {
    const { config, database, print, err } = tools
    const id = args['id'] as string
    if (config.encryptionKeys?.current.id === id) throw new UsageError(`"${id}" is the id of the current encryption key. If that is a new key, give it a new id in KEYGATE_ENCRYPTION_KEY_ID first.`)
    const { secrets, replays } = await database.run(async db => await countUnder(db, id))
    if (secrets + replays === 0) {
      if (options['yes'] === true) await forgetCheck(tools, id)
      print(`Nothing is encrypted under the key "${id}".`)
      return 0
    }
    const concerned = `${count(secrets, 'secret')} and ${count(replays, 'answer')} kept for a repeated request`
    if (options['yes'] !== true) {
      if (config.encryptionKeys?.previous.some(key => key.id === id) === true) err.write(`The key "${id}" is configured: "secrets rewrap" keeps what is under it.\n`)
      throw new UsageError(`Under the key "${id}" are ${concerned}: they can never be shown again if it is forgotten. To do it, add --yes.\n${hint(encryptionKeyForget)}`)
    }
    if (options[evenIfRunning] !== true) await refuseWhileRunning(tools, id)
    const dropped = { secrets: await drop(tools, id, 'secret'), replays: await drop(tools, id, 'replay') }
    print(`Forgotten: ${count(dropped.secrets, 'secret')} and ${count(dropped.replays, 'answer')} kept for a repeated request.`)
    const left = await database.run(async db => await countUnder(db, id))
    if (left.secrets + left.replays === 0) {
      await forgetCheck(tools, id)
      return 0
    }
    err.write(`Meanwhile more was encrypted under the key "${id}": a running service has it as its current one. Give every replica another one, then run this again.\n`)
    return 1
  }
}

/** What a service goes on encrypting under the key could never be shown either. */
async function refuseWhileRunning ({ database }: Tools, id: string): Promise<void> {
  const sessions = await database.run(countServiceSessions)
  if (sessions > 0) throw new Error(`Key-service is connected to the database (${count(sessions, 'session')}), and may have the key "${id}" as its current one. Stop every replica and try again; or restart each with another key in KEYGATE_ENCRYPTION_KEY and KEYGATE_ENCRYPTION_KEY_ID, then add --${evenIfRunning}.`)
}

async function drop ({ database, context }: Tools, id: string, use: 'secret' | 'replay'): Promise<number> {
  let total = 0
  for (let size = batchSize; size === batchSize; total += size) {
    size = await database.transaction(async tx => {
      const dropped = await ciphertextsOf[use].drop(tx, id, batchSize)
      if (dropped > 0) await recordAudit(tx, context, { action: 'encryptionKey.forget', projectId: null, keyId: null, details: { use, dropped, encryptionKeyId: id } })
      return dropped
    })
  }
  return total
}

/** The id may be given to another key then. */
async function forgetCheck ({ database }: Tools, id: string): Promise<void> {
  await database.run(async db => { await dropCheck(db, { kind: 'encryption-key', id }) })
}

function count (number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}
