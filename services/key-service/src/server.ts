import { runService } from '@keygate/service-kit'
import { buildApp } from './app.ts'
import { readConfig } from './config.ts'
import { openParts } from './parts.ts'

await runService(async () => {
  const { config, warnings } = readConfig(process.env)
  return {
    listen: config,
    logLevel: config.logLevel,
    build: async () => {
      const service = await buildApp(config, async log => await openParts(config, log))
      for (const warning of warnings) service.app.log.warn(warning)
      return service
    }
  }
})
