import Fastify, { type FastifyInstance } from 'fastify'
import { createStore } from './data/store.ts'
import { answerProblems } from './problem.ts'
import { echoRoutes } from './routes/echo.ts'
import { exportRoutes, type RowSource } from './routes/exports.ts'
import { fileRoutes } from './routes/files.ts'
import { formRoutes } from './routes/forms.ts'
import { statusRoutes } from './routes/status.ts'
import { submissionRoutes } from './routes/submissions.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Which operation of forms.openapi.yaml this route is. */
    operationId?: string
  }
}

export interface UpstreamOptions {
  /** `silent` unless told. */
  logLevel?: string
  /** Where exported rows come from; tests count them here. */
  exportRows?: RowSource
}

/** The path under which the API lies; the same as at the gateway, so that a path can be compared on both sides. */
export const prefix = '/app/api/v1'

/** The demo API: forms, submissions, files and exports in memory. It checks no key; that is the gateway's work. */
export function buildUpstream (options: UpstreamOptions = {}): FastifyInstance {
  const app = Fastify({
    logger: { level: options.logLevel ?? 'silent' },
    requestTimeout: 60_000,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 200 },
    ajv: { customOptions: { removeAdditional: false } } // else an unknown field vanishes instead of being refused
  })
  app.removeContentTypeParser('text/plain')
  answerProblems(app)
  app.get('/livez', () => 'ok\n')
  app.register(async api => {
    const store = createStore()
    statusRoutes(api)
    formRoutes(api, store)
    submissionRoutes(api, store)
    api.register(async files => { fileRoutes(files, store) }) // apart: its bodies are bytes, all others JSON
    exportRoutes(api, store, options.exportRows)
    echoRoutes(api)
  }, { prefix })
  return app
}
