import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort, startRedis, startService, type Env, type Service } from '@keygate/local'
import t from 'tap'
import { call } from './house.ts'

const dir = t.testdir({})
let files = 0

/** The path of a catalogue with an API for each of these policies. */
function catalogue (...policies: Array<[limit: string, window: string]>): string {
  return written('apis:' + policies.map(([limit, window], i) => `
  - name: forms-${i}
    prefix: /app/${i}
    upstream: http://127.0.0.1:4000/app/api/v1
    openapi: ${fileURLToPath(new URL('../../../infra/upstream/forms.openapi.yaml', import.meta.url))}
    scopes: tags
    policies: [{ name: default, limit: ${limit}, window: ${window} }]`).join(''))
}

function written (yaml: string): string {
  const file = join(dir, `apis-${++files}.yaml`)
  writeFileSync(file, yaml)
  return file
}

/** A gateway alone: whether it starts does not hang on key-service, nor on a Redis that is away. */
async function start (env: Env): Promise<Service> {
  const service = await startService('gateway', {
    KEYGATE_APIS: catalogue(['20', '60s']), KEYGATE_KEY_SERVICE_URL: 'http://127.0.0.1:9', KEYGATE_SERVICE_TOKEN: 'a-token-of-this-test', KEYGATE_ALLOW_PRIVATE_UPSTREAM: 'true', KEYGATE_DRAIN_DELAY_MS: '0', REDIS_URL: `redis://127.0.0.1:${await freePort()}`, ...env
  })
  t.teardown(service.stop)
  return service
}

/** Why it does not. */
const fault = async (env: Env): Promise<string> => await start(env).then(() => 'it started', (error: Error) => error.message)

t.test('R20: a wrong setting or catalogue is told with its remedy, without a stack, and ends the start with code 78', async t => {
  const wrong: Array<[string, string]> = [['"abc"', '60s'], ['0', '60s'], ['-1', '60s'], ['1.5', '60s'], ['20', '""']]
  const message = await fault({ KEYGATE_APIS: catalogue(...wrong) })
  t.match(message, /code 78/)
  for (const [i, [limit]] of wrong.entries()) t.match(message, `apis[${i}].policies[0].${limit === '20' ? 'window' : 'limit'}`, `${wrong[i]?.join(' per ')}`)
  t.notMatch(message, /\n\s+at /)
  t.match(await fault({ KEYGATE_APIS: written('apis: [\n') }), /code 78/)
  const missing = await fault({ REDIS_URL: '', KEYGATE_SERVICE_TOKEN: '' })
  t.match(missing, /code 78[^]*REDIS_URL is missing[^]*/)
  t.match(missing, /KEYGATE_SERVICE_TOKEN is missing/)
  t.notMatch(missing, /\n\s+at /)
})

t.test('B1-08: a Redis that refuses the password ends the start, with the remedy', async t => {
  const locked = await startRedis({ args: ['--requirepass', 'right'] })
  t.teardown(locked.stop)
  const message = await fault({ REDIS_URL: locked.url.replace('//', '//:wrong@') })
  t.match(message, /code 1 [^]*Redis refuses the user or password of REDIS_URL/)
  t.notMatch(message, /wrong@|\n\s+at /)
})

t.test('B1-11: without a Redis it starts, and is ready, if degraded', async t => {
  const { url } = await start({})
  for (const path of ['/livez', '/readyz']) t.equal((await call(url, { path })).status, 200, path)
  t.match((await call(url, { path: '/readyz?verbose' })).body, 'redis degraded')
})
