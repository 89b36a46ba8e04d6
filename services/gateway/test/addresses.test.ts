import t from 'tap'
import { canonicalAddress } from '../src/admission/address.ts'
import { countedAddress } from '../src/admission/limits.ts'
import { as, form, openProbeHouse } from './probe-house.ts'

const house = await openProbeHouse()
t.teardown(house.stop)
const { behindProxy, upstream, get } = house
const project = await house.createProject()
const { secret } = await project.createKey()

t.test('GX-10 A4-H K17: an allowed host is an address, however it is spelled; a numeric or look-alike text is none', async t => {
  const status = async (secret: string, ...forwarded: string[]): Promise<number> => (await get(form(project), [...as(project, secret), ...forwarded.flatMap(value => ['X-Forwarded-For', value])], behindProxy.url)).status
  const { secret: v4 } = await project.createKey({ allowedHosts: ['203.0.113.7'] })
  const { secret: v6 } = await project.createKey({ allowedHosts: ['2001:db8::7'] })
  const { secret: net } = await project.createKey({ allowedHosts: ['203.0.113.0/25', '2001:db8:1::/48'] })
  const bytes = (text: string): string => Buffer.from(text).toString('latin1')
  for (const same of ['203.0.113.7', '::ffff:203.0.113.7', '::FFFF:203.0.113.7', '::ffff:cb00:7107', '0:0:0:0:0:ffff:203.0.113.7', '203.0.113.7:4711', '[::ffff:203.0.113.7]:80', '9.9.9.9, 203.0.113.7', '203.0.113.7, 10.1.2.3', '9.9.9.9,203.0.113.7,10.1.2.3,10.9.9.9', '203.0.113.7, fd00::1']) t.equal(await status(v4, same), 200, same)
  for (const same of ['2001:db8::7', '2001:DB8::7', '2001:0db8:0:0:0:0:0:7', '[2001:db8::7]', '[2001:db8::7]:4711', '2001:db8::7%eth0']) t.equal(await status(v6, same), 200, same)
  for (const inside of ['203.0.113.0', '203.0.113.127', '2001:db8:1:ffff::']) t.equal(await status(net, inside), 200, inside)
  const others = ['203.0.113.8', '3405803783', '0xcb007107', '0xcb.0.0x71.7', '203.0.28935', '203.28935', '0313.0.0161.07', '203.0.113.07', '203.0.113.7.', '203.0.113.7/32', '203.0.113.7 ', '203.0.113.7 x', '203.0.113.7;x', '203.0.113.7, 9.9.9.9', '203.0.113.7, unknown', '203.0.113.7@9.9.9.9', 'localhost', 'unknown', '_hidden', '-', '', ',', '"203.0.113.7"', 'for=203.0.113.7', '127.0.0.1', '::1', '::', '::203.0.113.7', '64:ff9b::203.0.113.7', '[::ffff:203.0.113.7', '::ffff:203.0.113.7.', '%00', 'a'.repeat(5000),
    ...['２０３.０.１１３.７', '203。0。113。7', '203．0．113．7', '①', '\u00ad203.0.113.7', '203.0.113.7\u200b', '203.0.113.\u0667'].map(bytes)]
  for (const other of others) {
    const seen = await status(v4, other)
    t.equal(seen, other.trim() === '203.0.113.7' ? 200 : 403, JSON.stringify(other).slice(0, 50))
  }
  t.equal(await status(v4, '203.0.113.7', '9.9.9.9'), 403, 'of two lines the last is the trusted hop\'s')
  t.equal(await status(v4, '9.9.9.9', '203.0.113.7'), 200)
  t.equal(await status(secret, 'unknown'), 200, 'a key for every host needs none')
  for (const garbage of ['unknown', '', 'x'.repeat(100), '3405803783']) t.equal((await get(form(project), ['X-Forwarded-For', garbage, 'X-API-Key', 'wrong'], behindProxy.url)).status, 401, 'and a refusal is counted all the same')
})

t.test('GX-09 R19: who is not a trusted proxy says nothing about the client\'s address; who is, only what it saw itself', async t => {
  const { secret } = await project.createKey({ allowedHosts: ['10.0.0.1', '203.0.113.7'] })
  const { secret: here } = await project.createKey({ allowedHosts: ['127.0.0.1'] })
  for (const header of ['X-Forwarded-For', 'Forwarded', 'X-Real-IP', 'X-Client-IP', 'True-Client-IP', 'CF-Connecting-IP', 'X-Cluster-Client-IP']) {
    const value = header === 'Forwarded' ? 'for=10.0.0.1' : '10.0.0.1'
    t.equal((await get(form(project), [...as(project, secret), header, value])).status, 403, header)
    t.equal((await get(form(project), [...as(project, here), header, value])).status, 200, `${header}: it is the socket's`)
  }
  const ask = async (forwarded: string): Promise<number> => (await get(form(project), [...as(project, secret), 'X-Forwarded-For', forwarded], behindProxy.url)).status
  t.equal(await ask('203.0.113.7'), 200, 'left of the trusted proxy')
  t.equal(await ask('203.0.113.7, 198.51.100.1'), 403, 'not what the client wrote')
  t.equal(upstream.headers['x-forwarded-for'], '203.0.113.7', 'and the upstream is told the same one')
})

t.test('R15: anonymous calls past their limit do not touch a key of the same address', async t => {
  const statuses = []
  for (let i = 0; i < 6; i++) statuses.push((await get('/probe/status', ['X-Forwarded-For', '198.51.100.15'], behindProxy.url)).status)
  t.strictSame(statuses, [200, 200, 200, 200, 429, 429])
  t.equal((await get(form(project), [...as(project, secret), 'X-Forwarded-For', '198.51.100.15'], behindProxy.url)).status, 200)
})

t.test('an address in one spelling, and what it is counted under', async t => {
  const cases: Array<[string, string, string]> = [
    ['192.0.2.1', '192.0.2.1', '192.0.2.1'], ['::ffff:192.0.2.1', '192.0.2.1', '192.0.2.1'], ['::ffff:c000:201', '192.0.2.1', '192.0.2.1'], ['192.0.2.1:80', '192.0.2.1', '192.0.2.1'], ['[::ffff:192.0.2.1]:80', '192.0.2.1', '192.0.2.1'],
    ['2001:DB8:0:0::1', '2001:db8::1', '2001:db8::'], ['[2001:db8::1]:80', '2001:db8::1', '2001:db8::'], ['2001:db8::ffff:1%eth0', '2001:db8::ffff:1', '2001:db8::'], ['2001:db8:0:1::1', '2001:db8:0:1::1', '2001:db8:0:1::'],
    ['unknown', 'unknown', 'unknown'], ['3221225985', '3221225985', 'unknown'], ['192.0.2.01', '192.0.2.01', 'unknown'], ['', '', 'unknown'], ['[]:80', '[]:80', 'unknown'], ['%', '%', 'unknown'], ['::192.0.2.1', '::192.0.2.1', '::'], ['::ffff:0:192.0.2.1', '::ffff:0:c000:201', '::'], ['192.0.2.1%eth0', '192.0.2.1', '192.0.2.1']
  ]
  for (const [address, canonical, counted] of cases) t.strictSame([canonicalAddress(address), countedAddress(address)], [canonical, counted], address)
})
