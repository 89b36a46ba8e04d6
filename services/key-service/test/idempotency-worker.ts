import type { AddressInfo } from 'node:net'
import { buildApp } from '../src/app.ts'
import type { Config } from '../src/config.ts'
import { openParts } from '../src/parts.ts'

/** Asked by `idempotency.test.ts`: a key-service in a process of its own, so that it can be killed. Bytes do not survive the way as JSON. */
export interface Order { config: Config, encryptionKey: string }

process.on('message', ({ config, encryptionKey }: Order) => {
  const settings = { ...config, encryptionKeys: { current: { id: '1', value: Buffer.from(encryptionKey, 'base64') }, previous: [] } }
  listen(settings).then(port => { process.send?.(port) }, (error: Error) => { throw error })
})
process.on('disconnect', () => { process.exit() })

async function listen (config: Config): Promise<number> {
  const { app } = await buildApp(config, async log => {
    const parts = await openParts(config, log)
    if (!parts.redis.isReady) await new Promise<void>(resolve => { parts.redis.once('ready', resolve) })
    return parts
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  return (app.server.address() as AddressInfo).port
}
