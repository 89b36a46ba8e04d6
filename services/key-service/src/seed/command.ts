import { loadCatalogue } from '@keygate/api-catalog'
import { UsageError, type Command, type Input, type Tools } from '../cli/command.ts'
import { hint } from '../cli/help.ts'
import { startProgress } from '../cli/progress.ts'
import { createPeppers } from '../vault/peppers.ts'
import { openSecretsFile } from './secrets-file.ts'
import { seedKeys, type Seeded, type SeedOrder } from './seed-keys.ts'

/** As a shell tells it of a program that Ctrl-C has ended. */
const interrupted = 130

/** For trying things out at size: lists, searches, load. */
export const seed: Command = {
  name: 'seed',
  summary: 'Fills a project with keys that look like those of people. Run it again and it adds more.',
  options: {
    keys: { type: 'string', placeholder: '<count>', summary: 'how many; 1000 without it' },
    project: { type: 'string', placeholder: '<id>', summary: 'the project they go into; without it a new one named "Seeded"' },
    batch: { type: 'string', placeholder: '<count>', summary: 'keys per transaction; 1000 without it' },
    seed: { type: 'string', placeholder: '<number>', summary: 'another number gives other names and dates; 1 without it' },
    'secrets-file': { type: 'string', placeholder: '<path>', summary: 'a new file for up to 1000 secrets that work from anywhere, one per line' }
  },
  run: async (tools, { options }) => {
    const order: SeedOrder = {
      keys: count(options, 'keys', { default: 1000, max: 10_000_000 }),
      batch: count(options, 'batch', { default: 1000, max: 10_000 }),
      seed: count(options, 'seed', { default: 1, max: 2 ** 31 - 1 }),
      projectId: projectIn(options)
    }
    const stop = new AbortController()
    const onInterrupt = (): void => { stop.abort() }
    process.on('SIGINT', onInterrupt)
    try {
      const { keys } = await fill(tools, { ...order, signal: stop.signal }, options['secrets-file'] as string | undefined)
      if (keys === order.keys) return 0
      tools.err.write(`Interrupted: ${order.keys - keys} keys are missing. Run it again with the --project above to add them.\n`)
      return interrupted
    } finally {
      process.removeListener('SIGINT', onInterrupt)
    }
  }
}

async function fill ({ config, database, context, print, err }: Tools, order: SeedOrder, secretsPath: string | undefined): Promise<Seeded> {
  const { apis } = await loadCatalogue(config.apisFile)
  const parts = { database, context, peppers: createPeppers(config.peppers), prefix: config.keyPrefix, scopes: [...new Set(apis.flatMap(api => api.scopes))] }
  const secrets = secretsPath === undefined ? undefined : openSecretsFile(secretsPath)
  const progress = startProgress(err, order.keys, 'keys')
  const begun = performance.now()
  let inserted = 0
  const onInserted: SeedOrder['onInserted'] = keys => {
    inserted += keys.length
    progress.add(keys.length)
    secrets?.add(keys)
  }
  try {
    const seeded = await seedKeys(parts, { ...order, onInserted })
    progress.stop()
    const seconds = (performance.now() - begun) / 1000
    print(`${seeded.keys} new keys in the project ${seeded.projectId}: ${seconds.toFixed(1)} s, ${Math.round(seeded.keys / seconds)} keys/s`)
    return seeded
  } catch (error) {
    progress.stop()
    err.write(`After ${inserted} whole keys:\n`)
    throw error
  } finally {
    secrets?.close()
  }
}

function count (options: Input['options'], name: string, range: { default: number, max: number }): number {
  const text = options[name]
  if (text === undefined) return range.default
  const number = Number(text)
  if (typeof text === 'string' && /^\d+$/.test(text) && number >= 1 && number <= range.max) return number
  throw new UsageError(`--${name} must be a whole number from 1 to ${range.max}, but is ${JSON.stringify(text)}.\n${hint(seed)}`)
}

function projectIn ({ project }: Input['options']): string | undefined {
  if (project === undefined || /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(String(project))) return project as string | undefined
  throw new UsageError(`--project must be a project's id, but is ${JSON.stringify(project)}.\n${hint(seed)}`)
}
