import { CatalogueError, loadCatalogue, type Api, type Catalogue } from '@keygate/api-catalog'
import { ConfigError, type Environment } from '@keygate/service-kit'
import { readConfig, type Config } from '../config.ts'
import { upstreamFaults } from '../routing/upstream-faults.ts'
import { FaultsError } from './faults.ts'

/**
 * Reads all that a gateway reads before it connects to anything: its settings, the catalogue with its documents, and whether the upstreams
 * may be called. It opens no port.
 *
 * @returns what was found. @throws {FaultsError} with the faults of all of them at once.
 */
export async function checkConfig (env: Environment, warn: (warning: string) => void): Promise<string> {
  const parts: string[] = []
  const config = settingsOf(env, warn, parts)
  // A fault elsewhere among the settings does not keep the catalogue from being read.
  const file = config?.KEYGATE_APIS ?? env['KEYGATE_APIS'] ?? ''
  const catalogue = file === '' ? undefined : await catalogueOf(file, parts)
  const upstreams = catalogue === undefined ? [] : upstreamFaults(config ?? { KEYGATE_ALLOW_PRIVATE_UPSTREAM: env['KEYGATE_ALLOW_PRIVATE_UPSTREAM'] === 'true' })(catalogue)
  if (upstreams.length > 0) parts.push(new CatalogueError(file, upstreams).message)
  if (parts.length > 0 || catalogue === undefined) throw new FaultsError(parts)
  return ['ok', ...catalogue.apis.map(summaryOf)].join('\n') + '\n'
}

function settingsOf (env: Environment, warn: (warning: string) => void, parts: string[]): Config | undefined {
  try {
    const { config, warnings } = readConfig(env)
    for (const warning of warnings) warn(warning)
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    parts.push(error.message)
    return undefined
  }
}

async function catalogueOf (file: string, parts: string[]): Promise<Catalogue | undefined> {
  try {
    return await loadCatalogue(file)
  } catch (error) {
    if (!(error instanceof CatalogueError)) throw error
    parts.push(error.message)
    return undefined
  }
}

function summaryOf ({ name, prefix, upstream, operations, unlisted }: Api): string {
  const count = (wanted: string): number => operations.filter(({ access }) => access === wanted).length
  const rest = unlisted === 'forward' ? ', what is not listed is forwarded' : ''
  return `  ${name}: ${prefix === '' ? '/' : prefix} -> ${upstream}, ${operations.length} operations: ${count('key')} open to keys, ${count('public')} public, ${count('other')} open to no key${rest}`
}
