import { loadCatalogue } from '@keygate/api-catalog'
import { runService } from '@keygate/service-kit'
import { buildApp } from './app.ts'
import { readConfig } from './config.ts'

await runService(async () => {
  const { config, warnings } = readConfig(process.env)
  return {
    logLevel: config.LOG_LEVEL,
    listen: { host: config.KEYGATE_HOST, port: config.KEYGATE_PORT, metricsPort: config.KEYGATE_METRICS_PORT },
    build: async () => {
      const service = await buildApp({ config, catalogue: await loadCatalogue(config.KEYGATE_APIS) })
      for (const warning of warnings) service.app.log.warn(warning)
      return service
    }
  }
})
