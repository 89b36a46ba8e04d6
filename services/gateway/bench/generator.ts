import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Job, Seen } from './load.ts'

/** The process that makes the load: one for the whole run, so that it is as warm for each system as for any other. */
export interface Generator {
  /** Rejects when the load could not be made. Answers of any status are what was seen. */
  run: (job: Job) => Promise<Seen>
  stop: () => Promise<void>
}

export function startGenerator (): Generator {
  const child = fork(fileURLToPath(new URL('load.js', import.meta.url)), { execArgv: [], env: { ...process.env, NODE_ENV: 'production' }, detached: true })
  const exited = once(child, 'exit').then(() => { throw new Error('the load generator ended') })
  exited.catch(() => {})
  return {
    run: async job => {
      const message = once(child, 'message') as Promise<[{ seen: Seen } | { error: string }]>
      child.send(job)
      const [answer] = await Promise.race([message, exited])
      if ('error' in answer) throw new Error(`the load generator failed: ${answer.error}`)
      return answer.seen
    },
    stop: async () => {
      if (child.connected) child.disconnect()
      await exited.catch(() => {})
    }
  }
}
