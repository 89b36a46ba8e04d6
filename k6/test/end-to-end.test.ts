import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { freePort, startStack, type Stack } from '@keygate/local'
import { readPlan } from '../lib/settings.js'
import type { Settings } from '../lib/types.ts'
import { createRecorder, runSharedLimit, runSmoke } from './runner.ts'

const makeSecrets = fileURLToPath(new URL('../../infra/docker/make-secrets.js', import.meta.url))

/** The rules under which docker-compose.yml runs Redis, without the password: so the run below also shows that they let our services work. */
function composeAcl (folder: string): string {
  execFileSync(process.execPath, [makeSecrets, join(folder, 'secrets')])
  const file = join(folder, 'redis.acl')
  writeFileSync(file, readFileSync(join(folder, 'secrets', 'redis.acl'), 'utf8').replace(/#[0-9a-f]{64}/, 'nopass'))
  return file
}

async function settingsOf ({ keyService, gateways, tokens }: Stack): Promise<Settings> {
  const { tools } = createRecorder()
  const headers = { authorization: `Bearer ${tokens.operator}`, 'content-type': 'application/json' }
  const answer = await tools.request('POST', `${keyService.url}/v1/projects`, headers, JSON.stringify({ name: 'k6' }))
  if (answer.status !== 201) throw new Error(`no project: ${answer.status} ${answer.body}`)
  const projectId = String(JSON.parse(answer.body).id)
  return { keyService: keyService.url, gateways: gateways.map(({ url }) => url), projectId, operatorToken: tokens.operator, example: `/app/api/v1/forms/${projectId}` }
}

t.test('the real system, with two gateways, on the Redis rules of the compose file', async (t: Test) => {
  const folder = t.testdir()
  const stack = await startStack({ dir: join(folder, 'stack'), gateways: 2, ephemeral: true, redis: { args: ['--aclfile', composeAcl(folder)] } })
  t.teardown(stack.stop)
  const settings = await settingsOf(stack)

  t.same(await runSmoke(settings), [], 'smoke.js finds nothing wrong')

  // Ends with a real wait, at most the window: Retry-After is counted by Redis. The window is far longer than the calls take.
  const plan = readPlan({ KEYGATE_LIMIT: '20', KEYGATE_WINDOW_SECONDS: '10' })
  t.same(await runSharedLimit(settings, plan, 20), [], 'shared-limit.js finds nothing wrong')
})

t.test('the real system without any Redis: one gateway that counts alone', async (t: Test) => {
  const nowhere = `redis://127.0.0.1:${await freePort()}`
  const stack = await startStack({ dir: join(t.testdir(), 'stack'), gateways: 1, ephemeral: true, redisUrl: nowhere, env: { gateway: { KEYGATE_REPLICAS: '1' } } })
  t.teardown(stack.stop)
  const settings: Settings = { ...await settingsOf(stack), alone: true }

  t.same(await runSmoke(settings), [], 'smoke.js finds nothing wrong')
  const plan = readPlan({ KEYGATE_LIMIT: '20', KEYGATE_WINDOW_SECONDS: '10' })
  t.same(await runSharedLimit(settings, plan, 20), [], 'shared-limit.js finds nothing wrong')
})
