import replyFrom from '@fastify/reply-from'
import fastify from 'fastify'
import { connections, endWithBench, upstreamUrl } from './serve.ts'

const app = fastify()
await app.register(replyFrom, { base: upstreamUrl, undici: { connections, pipelining: 1 } })
app.all('/*', (_request, reply) => { reply.from() })
console.log(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port)
endWithBench()
