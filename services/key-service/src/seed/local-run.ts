import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Environment } from '@keygate/service-kit'

const repository = fileURLToPath(new URL('../../../../', import.meta.url))

/**
 * The variables that the launcher (`npm start`) gives its key-service, as far as this folder tells them; undefined when it has not
 * run. A service knows nothing of the launcher, so this reads the files and not the launcher's code.
 */
export function localEnvironment (dir = join(repository, '.keygate')): Environment | undefined {
  try {
    const run = JSON.parse(readFileSync(join(dir, 'local.json'), 'utf8')) as { postgres?: unknown, redis?: unknown }
    if (typeof run.postgres !== 'string') return undefined
    return {
      DATABASE_URL: run.postgres,
      // Nothing here speaks to Redis; without one the launcher's service has an address too.
      REDIS_URL: typeof run.redis === 'string' ? run.redis : 'redis://127.0.0.1:6379',
      KEYGATE_PEPPER_FILE: join(dir, 'secrets/pepper'),
      KEYGATE_APIS: join(dir, 'apis.yaml')
    }
  } catch {
    return undefined
  }
}
