import { connect, type AddressInfo } from 'node:net'
import { createServer, problem } from '../src/index.ts'
const app = createServer({ service: 'test', logLevel: 'silent' })
await app.register(problem)
app.post('/', async ({ body }) => body)
await app.listen({ port: 0, host: '127.0.0.1' })
const port = (app.server.address() as AddressInfo).port
async function exchange (bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.write(bytes)
  let answer = ''
  const timer = setTimeout(() => { console.log('TIMEOUT', JSON.stringify(answer.slice(0, 300))); socket.destroy() }, 2000)
  try { for await (const chunk of socket) answer += String(chunk) } catch (e) { console.log('ERR', e) }
  clearTimeout(timer)
  return answer
}
for (const b of ['garbage\r\n\r\n', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 'POST / HTTP/1.1\r\nHost: x\r\nExpect: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n', 'POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}', 'CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n']) console.log(b.slice(0, 40), '->', (await exchange(b)).slice(0, 120))
await app.close()
