import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { RedisStore, logKey } from '../src/index.ts'
import { fixed, sliding, startStores } from './harness.ts'

const { connection, close } = await startStores()
t.teardown(close)

t.test('what a log costs in Redis is what the README says, and at most 12 bytes per entry and 280', async t => {
  const rows = readFileSync(new URL('../README.md', import.meta.url), 'utf8').matchAll(/^\| (sliding|fixed), ([\d ]+) admitted \| ([\d ]+) \|/gm)
  const number = (text = ''): number => Number(text.replaceAll(' ', ''))
  let compared = 0
  for (const [, algorithm, entries, bytes] of rows) {
    const count = number(entries)
    const policy = { sliding, fixed }[algorithm as 'sliding' | 'fixed'](count, 3600)
    const log = logKey(randomUUID(), { kind: 'project' }, { kind: 'key', keyId: 'key_0123456789ABCDEFGHIJKLMNOP' }, policy)
    const store = new RedisStore(connection)
    // One by one where it is quick, as it happens; a thousand at a time above.
    for (let left = count; left > 0; left -= Math.min(left, 1000)) {
      const part = Math.min(left, 1000)
      if (count > 10_000) await store.decide({ cost: part, limits: [{ policy, log }] })
      else await Promise.all(Array.from({ length: part }, async () => await store.decide({ cost: 1, limits: [{ policy, log }] })))
    }
    const used = Number(await connection.client.memory('USAGE', log, 'SAMPLES', 0))
    t.comment(`${algorithm}, ${count} admitted: ${used} bytes`)
    t.ok(Math.abs(used - number(bytes)) <= 0.1 * used, `${algorithm}, ${count}: ${used} bytes, README ${bytes}`)
    t.ok(used <= 280 + 12 * (algorithm === 'sliding' ? count : 0), 'the bound')
    compared++
  }
  t.equal(compared, 7)
})
