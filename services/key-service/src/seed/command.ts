import { loadCatalogue } from '@keygate/api-catalog'
import type { Command, Tools } from '../cli/command.ts'
import { startProgress } from '../cli/progress.ts'
import { createPeppers } from '../vault/peppers.ts'
import { count, interrupted, projectIn, untilInterrupted } from './options.ts'
import { openSecretsFile } from './secrets-file.ts'
import { seedKeys, type Seeded, type SeedOrder } from './seed-keys.ts'

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
      keys: count(options, 'keys', { default: 1000, max: 10_000_000 }, seed),
      batch: count(options, 'batch', { default: 1000, max: 10_000 }, seed),
      seed: count(options, 'seed', { default: 1, max: 2 ** 31 - 1 }, seed),
      projectId: projectIn(options, seed)
    }
    const { keys } = await untilInterrupted(async signal => await fill(tools, { ...order, signal }, options['secrets-file'] as string | undefined))
    if (keys === order.keys) return 0
    tools.err.write(`Interrupted: ${order.keys - keys} keys are missing. Run it again with the --project above to add them.\n`)
    return interrupted
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
