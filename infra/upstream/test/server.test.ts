import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { prefix } from '../src/index.ts'

const server = fileURLToPath(new URL('../src/server.ts', import.meta.url))
const env = (port: number): NodeJS.ProcessEnv => ({ ...process.env, PORT: String(port), LOG_LEVEL: 'silent' })

async function start (t: Test): Promise<{ child: ChildProcess, url: string }> {
  const child = fork(server, { env: env(0) })
  t.teardown(() => { child.kill('SIGKILL') })
  const [message] = await once(child, 'message') as [{ type: string, url: string }]
  t.equal(message.type, 'ready')
  return { child, url: message.url }
}

t.test('the process tells its parent the address, answers, and ends cleanly on SIGTERM', async t => {
  const { child, url } = await start(t)
  t.equal((await fetch(`${url}${prefix}/status`)).status, 200)
  t.equal((await fetch(`${url}/livez`)).status, 200)
  child.kill('SIGTERM')
  t.same(await once(child, 'exit'), [0, null])
})

t.test('the process ends when its parent is gone', async t => {
  const { child } = await start(t)
  child.disconnect()
  t.same(await once(child, 'exit'), [0, null])
})

t.test('a taken port is one sentence with the remedy', async t => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  const child = spawn(process.execPath, [...process.execArgv, server], { env: env((other.address() as AddressInfo).port) })
  let said = ''
  child.stderr.on('data', chunk => { said += String(chunk) })
  t.same(await once(child, 'close'), [1, null])
  t.match(said, /^Port \d+ is taken\. Set PORT to another one/)
  t.notMatch(said, /\n {4}at /)
})
