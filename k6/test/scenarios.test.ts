import t, { type Test } from 'tap'
import { readPlan, readSettings } from '../lib/settings.js'
import type { Settings } from '../lib/types.ts'
import { brokenThresholds, runSharedLimit, runSmoke } from './runner.ts'
import { type Defects, startStandIn } from './stand-in.ts'

const plan = readPlan({ KEYGATE_LIMIT: '20', KEYGATE_WINDOW_SECONDS: '60' })

async function smokeWith (t: Test, defects: Defects): Promise<string[]> {
  const standIn = await startStandIn(defects)
  t.teardown(standIn.close)
  return await runSmoke(standIn.settings)
}

async function sharedLimitWith (t: Test, defects: Defects): Promise<string> {
  const standIn = await startStandIn(defects)
  t.teardown(standIn.close)
  return (await runSharedLimit(standIn.settings, plan, 10, standIn.advance)).join('\n')
}

t.test('both scenarios find nothing wrong with a system that does what it should', async t => {
  t.same(await smokeWith(t, {}), [])
  t.equal(await sharedLimitWith(t, {}), '')
})

t.test('smoke notices', async t => {
  t.match(await smokeWith(t, { countsApart: true }), ['the gateways count together'])
  t.match(await smokeWith(t, { keepsDeletedKeys: true }), ['without a valid key it is a 401'])
  t.match(await smokeWith(t, { secondIsDown: true }), ['without a valid key it is a 401', 'a 401 asks for Basic', 'an admitted call is a 200'])
})

t.test('shared-limit notices', async t => {
  t.match(await sharedLimitWith(t, { countsApart: true }), 'keygate_admitted count==20, but was {"count":40')
  t.match(await sharedLimitWith(t, { noRetryAfter: true }), 'Retry-After is the reset')
  t.match(await sharedLimitWith(t, { shortRetryAfter: true }), 'Retry-After is the reset')
  t.match(await sharedLimitWith(t, { secondIsDown: true }), 'keygate_other count==0')
})

t.test('a key that cannot be issued ends the run with the reason', async t => {
  const standIn = await startStandIn()
  t.teardown(standIn.close)
  await t.rejects(runSmoke({ ...standIn.settings, operatorToken: 'wrong' }), /key-service did not issue a key: 401/)
})

t.test('settings come from the environment first, then from the file of the local run', t => {
  const file: Settings = { keyService: 'http://k', gateways: ['http://a', 'http://b'], projectId: 'p', operatorToken: 'o', example: '/x' }
  const readFile = (): string => JSON.stringify({ ...file, secret: 'not for scenarios' })
  t.same(readSettings({}, readFile), file)
  t.same(readSettings({ KEYGATE_GATEWAYS: 'http://c, http://d' }, readFile).gateways, ['http://c', 'http://d'])
  const env = { KEYGATE_KEY_SERVICE: 'k', KEYGATE_GATEWAYS: 'a', KEYGATE_PROJECT_ID: 'p', KEYGATE_OPERATOR_TOKEN: 'o', KEYGATE_EXAMPLE: '/e' }
  t.equal(readSettings({}, () => JSON.stringify({ ...file, gateways: ['http://a'], redis: null })).alone, true, 'a local run without Redis')
  t.notOk('alone' in readSettings({}, () => JSON.stringify({ ...file, redis: 'redis://r' })))
  t.equal(readSettings(env, () => { throw new Error('must not be read') }).example, '/e')
  t.throws(() => readSettings({}, () => '{"keyService":"k"}'), /gateways, projectId, operatorToken, example/)
  t.end()
})

t.test('the plan fits four times the limit into one window', t => {
  for (const [limit, windowSeconds] of [[1, 2], [20, 60], [40, 30], [1000, 5]] as const) {
    const plan = readPlan({ KEYGATE_LIMIT: String(limit), KEYGATE_WINDOW_SECONDS: String(windowSeconds) })
    t.ok(plan.ratePerSecond * plan.durationSeconds >= 4 * limit)
    t.ok(plan.durationSeconds < windowSeconds)
  }
  for (const wrong of ['0', '-1', '1.5', 'many', '']) t.throws(() => readPlan({ KEYGATE_LIMIT: wrong }), /KEYGATE_LIMIT must be a whole number/)
  t.throws(() => readPlan({ KEYGATE_WINDOW_SECONDS: '1' }), /from 2/, 'no call of the run may fall into a second window')
  t.end()
})

t.test('the runner refuses a threshold that it cannot judge', t => {
  t.throws(() => brokenThresholds({ checks: ['p(95)<200'] }, {}), /does not know the threshold/)
  t.same(brokenThresholds({ checks: ['rate==1'] }, {}).length, 1, 'a metric without samples does not pass')
  t.end()
})
