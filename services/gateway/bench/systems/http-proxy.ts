import httpProxy from '@fastify/http-proxy'
import fastify from 'fastify'
import { connections, endWithBench, upstreamUrl } from './serve.ts'

const app = fastify()
await app.register(httpProxy, { upstream: upstreamUrl, undici: { connections, pipelining: 1 } })
console.log(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port)
endWithBench()
