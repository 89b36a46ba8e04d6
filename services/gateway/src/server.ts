import { runService } from '@keygate/service-kit'
import { buildApp } from './app.ts'
import { runCommandLine } from './cli.ts'
import { readConfig } from './config.ts'
import { LiveCatalogue } from './routing/live-catalogue.ts'
import { upstreamFaults } from './routing/upstream-faults.ts'

const exitCode = await runCommandLine(process.argv.slice(2), { env: process.env, out: process.stdout, err: process.stderr })
if (exitCode === null) await serve()
else process.exitCode = exitCode

async function serve (): Promise<void> {
  await runService(async () => {
    const { config, warnings } = readConfig(process.env)
    return {
      logLevel: config.LOG_LEVEL,
      listen: { host: config.KEYGATE_HOST, port: config.KEYGATE_PORT, metricsPort: config.KEYGATE_METRICS_PORT },
      drain: { delayMs: config.KEYGATE_DRAIN_DELAY_MS, deadlineMs: config.KEYGATE_SHUTDOWN_TIMEOUT_MS },
      build: async () => {
        const service = await buildApp({ config, live: await LiveCatalogue.open({ file: config.KEYGATE_APIS, check: upstreamFaults(config) }) })
        for (const warning of warnings) service.app.log.warn(warning)
        return service
      }
    }
  })
}
