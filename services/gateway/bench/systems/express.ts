import { Agent, createServer } from 'node:http'
import express from 'express'
import { rateLimit } from 'express-rate-limit'
import { createProxyMiddleware } from 'http-proxy-middleware'
import { Redis } from 'ioredis'
import { RedisStore, type RedisReply } from 'rate-limit-redis'
import { connections, limit, redisUrl, serve, upstreamUrl } from './serve.ts'

const redis = new Redis(redisUrl)
const app = express()
app.disable('x-powered-by')
app.use(rateLimit({
  limit: limit.requests,
  windowMs: limit.windowMs,
  standardHeaders: 'draft-8',
  legacyHeaders: false,
  store: new RedisStore({ prefix: 'bench-express:', sendCommand: async (command: string, ...args: string[]) => await redis.call(command, ...args) as RedisReply })
}))
app.use(createProxyMiddleware({ target: upstreamUrl, agent: new Agent({ keepAlive: true, maxSockets: connections }) }))
serve(createServer(app))
