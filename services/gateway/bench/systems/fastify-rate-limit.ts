import httpProxy from '@fastify/http-proxy'
import rateLimit from '@fastify/rate-limit'
import fastify from 'fastify'
import { Redis } from 'ioredis'
import { connections, endWithBench, limit, redisUrl, upstreamUrl } from './serve.ts'

const app = fastify()
// The settings of the connection are those that the plugin's documentation gives.
const redis = new Redis(redisUrl, { connectTimeout: 500, maxRetriesPerRequest: 1 })
await app.register(rateLimit, { max: limit.requests, timeWindow: limit.windowMs, redis, nameSpace: 'bench-fastify:' })
await app.register(httpProxy, { upstream: upstreamUrl, undici: { connections, pipelining: 1 } })
console.log(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port)
endWithBench()
