import { buildUpstream } from './app.ts'

/** How long answers under way may take to finish once the process is told to end. */
const drainMs = 5_000

const port = Number(process.env['PORT'] ?? 4000)
const host = process.env['HOST'] ?? '127.0.0.1'
const app = buildUpstream({ logLevel: process.env['LOG_LEVEL'] ?? 'info' })

let closing = false
async function end (): Promise<void> {
  if (closing) return
  closing = true
  // An export may run for minutes, a client may hold its end open for ever: neither may keep the process.
  setTimeout(() => { app.server.closeAllConnections() }, drainMs).unref()
  await app.close()
  if (process.connected) process.disconnect()
}

process.once('SIGTERM', end)
process.once('SIGINT', end)
// The launcher's channel closes when the launcher dies, however it dies.
process.once('disconnect', end)

try {
  const url = await app.listen({ host, port })
  process.send?.({ type: 'ready', url })
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException
  process.stderr.write(code === 'EADDRINUSE' ? `Port ${port} is taken. Set PORT to another one, or to 0 for any free port.\n` : `The demo API could not start: ${message}\n`)
  process.exit(1)
}
