// A service as a process, for start.test.ts: what it does stands in its environment. Of the built kit, because a dozen processes that
// compile would take half a minute.
import { Type } from 'typebox'
import { StartError, createRegistry, createServer, loadConfig, runService } from '../dist/index.js'

const Variables = Type.Object({
  KEYGATE_HOST: Type.String({ default: '127.0.0.1' }),
  KEYGATE_PORT: Type.Integer({ default: 0 }),
  KEYGATE_METRICS_PORT: Type.Optional(Type.Integer()),
  LOG_LEVEL: Type.String({ default: 'silent' }),
  FAIL: Type.Optional(Type.String())
})

await runService(async () => {
  const { config } = loadConfig(Variables, process.env)
  return {
    listen: { host: config.KEYGATE_HOST, port: config.KEYGATE_PORT, metricsPort: config.KEYGATE_METRICS_PORT },
    logLevel: config.LOG_LEVEL,
    build: async () => {
      if (config.FAIL === 'expected') throw new StartError('The moon is away. Wait for it.')
      if (config.FAIL !== undefined) throw new TypeError(config.FAIL)
      const app = createServer({ service: 'test', logLevel: config.LOG_LEVEL })
      app.addHook('onClose', async () => { process.stdout.write('closed\n') })
      return { app, registry: createRegistry('test') }
    }
  }
})
