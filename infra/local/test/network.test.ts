import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { freePort, isPortFree, startTcpProxy } from '../src/index.ts'

/** A server that sends back what it gets, and counts it. */
async function echoServer (t: Test) {
  const sockets = new Set<Socket>()
  const seen: string[] = []
  const server = createServer({ allowHalfOpen: true }, socket => {
    sockets.add(socket)
    socket.on('data', chunk => {
      seen.push(chunk.toString())
      socket.write(chunk)
    })
    socket.on('end', () => socket.end('bye'))
    socket.on('error', () => {})
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return { port: (server.address() as AddressInfo).port, seen }
}

async function setUp (t: Test) {
  const target = await echoServer(t)
  const proxy = await startTcpProxy(target.port)
  t.teardown(proxy.stop)
  const client = connect(proxy.port, '127.0.0.1')
  client.setEncoding('utf8').on('error', () => {})
  t.teardown(() => client.destroy())
  await proxy.once('connection')
  const say = async (text: string) => {
    client.write(text)
    return (await once(client, 'data'))[0] as string
  }
  return { target, proxy, client, say }
}

/** Closed, by an error or not (`once` of node:events would reject on the error). */
async function ended (socket: Socket): Promise<void> {
  await new Promise<void>(resolve => socket.once('close', () => resolve()))
}

t.test('free port', async t => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  t.equal(await isPortFree(port), false)
  t.ok(await freePort(port) > port, 'the next one when the wanted one is taken')
  const any = await freePort()
  t.equal(await freePort(any), any, 'the wanted one when it is free')
  t.ok(await freePort(any, new Set([any])) > any, 'never one to be avoided')
  await t.rejects(freePort(65_536), { name: 'LocalError' })
})

t.test('passes bytes both ways, and the end of a stream in its own direction only', async t => {
  const { proxy, client, say } = await setUp(t)
  t.equal(await say('hello'), 'hello')
  t.equal(proxy.connections, 1)
  const large = 'x'.repeat(5_000_000)
  let got = 0
  client.on('data', (text: string) => { got += text.length })
  client.end(large)
  await once(client, 'end')
  t.equal(got, large.length + 'bye'.length, 'a slow side holds the other back, nothing is lost')
})

t.test('pause holds what comes, resume lets it go in order', async t => {
  const { target, proxy, client } = await setUp(t)
  proxy.pause('up')
  const held = proxy.once('held')
  client.write('one')
  await held
  t.strictSame(target.seen, [])
  const heldAgain = proxy.once('held')
  client.write('two')
  await heldAgain
  let got = ''
  const all = new Promise<void>(resolve => client.on('data', (text: string) => {
    got += text
    if (got.length === 6) resolve()
  }))
  proxy.resume()
  await all
  t.equal(got, 'onetwo')

  proxy.pause('down')
  const answer = proxy.once('held')
  client.write('three')
  await answer
  t.equal(target.seen.join(''), 'onetwothree', 'the other direction flows')
})

t.test('swallow: a black hole from the first chunk that matches', async t => {
  const { target, proxy, client, say } = await setUp(t)
  const swallowed = proxy.swallow('up', chunk => chunk.includes('secret'))
  t.equal(await say('harmless'), 'harmless')
  client.write('a secret thing')
  t.equal((await swallowed).toString(), 'a secret thing')
  const next = proxy.once('swallowed')
  client.write('what follows')
  await next
  t.strictSame(target.seen, ['harmless'])
  t.equal(proxy.connections, 1, 'the connection stays open')

  const closed = ended(client)
  proxy.resume()
  await closed
  const fresh = connect(proxy.port, '127.0.0.1')
  t.teardown(() => fresh.destroy())
  fresh.write('again')
  t.equal(String((await once(fresh, 'data'))[0]), 'again', 'a new connection works')
})

t.test('swallow the answers only', async t => {
  const { target, proxy, client } = await setUp(t)
  const swallowed = proxy.swallow('down')
  client.write('arrives')
  t.equal((await swallowed).toString(), 'arrives')
  t.strictSame(target.seen, ['arrives'])
})

t.test('reset ends connections on both sides; new ones are accepted; stop refuses them', async t => {
  const { proxy, client, target } = await setUp(t)
  const [error] = await Promise.all([once(client, 'error'), proxy.reset()])
  t.match(error, [{ code: 'ECONNRESET' }])
  const fresh = connect(proxy.port, '127.0.0.1')
  fresh.on('error', () => {})
  fresh.write('again')
  t.equal(String((await once(fresh, 'data'))[0]), 'again')
  t.strictSame(target.seen, ['again'])
  await Promise.all([ended(fresh), proxy.stop()])
  t.equal(proxy.connections, 0)
  t.equal(await isPortFree(proxy.port), true)
})

t.test('a target that is not there: the client is told at once', async t => {
  const proxy = await startTcpProxy(await freePort())
  t.teardown(proxy.stop)
  const client = connect(proxy.port, '127.0.0.1')
  await t.rejects(once(client, 'data'), { code: 'ECONNRESET' })
})
