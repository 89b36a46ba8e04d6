import fp from 'fastify-plugin'

export interface HealthOptions {
  /** Each check resolves when the part can do its work, and rejects with the reason when not. */
  checks: Record<string, () => Promise<unknown>>
  /** Parts without which the work goes on, if less well: a failure is shown and changes nothing. */
  helpers?: Record<string, () => Promise<unknown>>
}

/** `/livez`: the process runs. `/readyz`: it can do its work; a machine reads the status, `?verbose` lists the checks for people. */
export const health = fp<HealthOptions>(async (app, { checks, helpers = {} }) => {
  app.get('/livez', { schema: { hide: true } as object }, async (_request, reply) => reply.type('text/plain').send('ok\n'))
  app.get('/readyz', { schema: { hide: true } as object }, async (_request, reply) => {
    const results = await Promise.all(Object.entries(checks).map(async ([name, check]) =>
      await check().then(() => ({ name, ok: true }), () => ({ name, ok: false }))))
    const degraded = await Promise.all(Object.entries(helpers).map(async ([name, check]) =>
      await check().then(() => `[+]${name} ok\n`, () => `[~]${name} degraded\n`)))
    const ready = !app.isDraining && results.every(result => result.ok)
    const lines = results.map(result => `[${result.ok ? '+' : '-'}]${result.name} ${result.ok ? 'ok' : 'failed'}\n`).join('') + degraded.join('')
    return await reply.code(ready ? 200 : 503).type('text/plain').send(`${lines}${app.isDraining ? 'draining: ' : ''}${ready ? 'ready' : 'not ready'}\n`)
  })
}, { name: 'health' })
