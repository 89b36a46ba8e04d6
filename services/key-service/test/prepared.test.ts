import { sql } from 'drizzle-orm'
import t from 'tap'
import { openDatabase, type Executor } from '../src/db/database.ts'
import { startHouse } from './helper.ts'

const house = await startHouse(t)
const url = await house.database()

interface Prepared extends Record<string, unknown> { pid: number, statement: string }

const prepared = async (db: Executor): Promise<Prepared[]> => [...await db.execute<Prepared>(sql.raw('SELECT pg_backend_pid() AS pid, statement FROM pg_prepared_statements'))]
const ask = async (db: Executor, n: number) => await db.execute<{ n: number }>(sql`SELECT ${n}::int AS n`)

t.test('what a connection is asked often is prepared, and answers the same', async t => {
  const database = openDatabase(url, { max: 1 })
  t.teardown(database.close)
  const counts: number[] = []
  for (let i = 1; i <= 6; i++) {
    t.same((await database.run(async db => await ask(db, i)))[0], { n: i })
    counts.push((await database.run(prepared)).length)
  }
  t.same(counts, [0, 0, 1, 1, 1, 1])
})

t.test('a search is planned for its own values each time', async t => {
  const database = openDatabase(url, { max: 1 })
  t.teardown(database.close)
  for (let i = 1; i <= 6; i++) t.same((await database.search(async db => await ask(db, i)))[0], { n: i })
  t.same(await database.run(prepared), [])
})

t.test('in a transaction too, and after one that was undone', async t => {
  const database = openDatabase(url, { max: 1 })
  t.teardown(database.close)
  for (let i = 1; i <= 4; i++) {
    await t.rejects(database.transaction(async tx => {
      await ask(tx, i)
      await tx.execute(sql`SELECT 1 / ${0}::int`)
    }), { code: '22012' })
  }
  t.same((await database.transaction(async tx => await ask(tx, 7)))[0], { n: 7 })
})

t.test('a change of the schema under a prepared statement is not an error', async t => {
  const database = openDatabase(url, { max: 1 })
  t.teardown(database.close)
  await database.run(async db => { await db.execute(sql.raw('CREATE TABLE shapes (a int)')) })
  const read = async (db: Executor) => await db.execute(sql`SELECT * FROM shapes WHERE ${1}::int = 1`)
  const write = async (tx: Executor) => await tx.execute(sql`INSERT INTO shapes VALUES (${1}) RETURNING *`)
  for (let i = 0; i < 4; i++) await database.run(read)
  for (let i = 0; i < 4; i++) await database.transaction(write)
  await database.run(async db => { await db.execute(sql.raw('DELETE FROM shapes; ALTER TABLE shapes ADD COLUMN b int DEFAULT 2')) })
  t.same([...await database.transaction(write)], [{ a: 1, b: 2 }], 'in a transaction, which is made again')
  t.same([...await database.run(read)], [{ a: 1, b: 2 }])
})

t.test('texts without end do not fill the server: their connection is replaced, and nothing is refused meanwhile', async t => {
  const database = openDatabase(url, { max: 1 })
  t.teardown(database.close)
  const pids = new Set<number>()
  let most = 0
  for (let length = 1; length <= 400; length++) {
    const list = sql.join(Array.from({ length }, (_, i) => sql`${i}::int`), sql`, `)
    for (let again = 0; again < 3; again++) {
      const [row] = await database.run(async db => await db.execute<{ pid: number, n: number }>(sql`SELECT pg_backend_pid() AS pid, cardinality(ARRAY[${list}]) AS n`))
      if (row?.n !== length) t.fail(`a list of ${length} came back as ${row?.n}`)
      pids.add(row?.pid ?? 0)
    }
    most = Math.max(most, (await database.run(prepared)).length)
  }
  t.ok(pids.size >= 3 && pids.size <= 5, `${pids.size} connections`)
  t.ok(most > 0 && most <= 150, `at most ${most} statements are kept`)
})
