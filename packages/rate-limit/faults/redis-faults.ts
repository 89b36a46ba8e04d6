import { startRedis } from '@keygate/local'
import { withClient, until, type Stage } from './stage.ts'

/** Something that happens to Redis, and how it ends. */
export interface Fault {
  /** As in hardening.md, B1. */
  id: string
  name: string
  /** Whether Redis still knows afterwards what it has admitted. */
  memory: 'kept' | 'lost'
  proxied?: boolean
  args?: string[]
  /** What has to be set up before replicas can count. */
  prepare?: (stage: Stage) => Promise<void>
  inject: (stage: Stage) => Promise<void>
  heal: (stage: Stage) => Promise<void>
  /** What replicas must have met; else the fault was another one than it is called. */
  met?: RegExp
}

const kill: Fault = {
  id: 'B1-01',
  name: 'SIGKILL, then a restart without its data',
  memory: 'lost',
  inject: async ({ redis }) => { await redis.kill() },
  heal: async stage => {
    await stage.redis.stop()
    stage.redis = await startRedis({ port: stage.redis.port })
  },
  met: /the connection is|Connection is closed|ECONN/i
}

const stop: Fault = {
  id: 'B1-02',
  name: 'SIGSTOP, then SIGCONT',
  memory: 'kept',
  inject: async ({ redis }) => { process.kill(redis.pid, 'SIGSTOP') },
  heal: async ({ redis }) => { process.kill(redis.pid, 'SIGCONT') }
}

const blackHole: Fault = {
  id: 'B1-03',
  name: 'every byte is swallowed, connections stay open',
  memory: 'kept',
  proxied: true,
  inject: async ({ proxy }) => { proxy?.swallow('both').catch(() => {}) },
  heal: async ({ proxy }) => { proxy?.resume() }
}

const outOfMemory: Fault = {
  id: 'B1-06',
  name: 'maxmemory reached, noeviction',
  memory: 'kept',
  inject: async ({ admin }) => { await admin(async client => await client.config('SET', 'maxmemory', '1mb')) },
  heal: async ({ admin }) => { await admin(async client => await client.config('SET', 'maxmemory', '0')) },
  met: /OOM/
}

const readOnly: Fault = {
  id: 'B1-07',
  name: 'REPLICAOF a primary that is away, then NO ONE',
  memory: 'kept',
  inject: async ({ admin }) => { await admin(async client => await client.call('REPLICAOF', '127.0.0.1', '1')) },
  heal: async ({ admin }) => { await admin(async client => await client.call('REPLICAOF', 'NO', 'ONE')) },
  met: /READONLY/
}

const busy: Fault = {
  id: 'B1-08',
  name: 'BUSY: an endless script',
  memory: 'kept',
  args: ['--busy-reply-threshold', '50'],
  inject: async stage => {
    const running = stage.admin(async client => { await client.eval('while true do end', 0) }).catch(() => {})
    stage.onClose(async () => { await stage.redis.kill(); await running })
    await until('busy', async () => await stage.admin(async client => await client.get('any').then(() => false, (error: Error) => error.message.startsWith('BUSY'))))
  },
  heal: async ({ admin }) => { await admin(async client => await client.script('KILL')) },
  met: /BUSY/
}

const loading: Fault = {
  id: 'B1-08',
  name: 'LOADING: it becomes the replica of a full primary, then NO ONE',
  memory: 'lost',
  // Replies READONLY come before LOADING, so the replica has to take writes.
  args: ['--replica-read-only', 'no', '--key-load-delay', '1000', '--loading-process-events-interval-bytes', '1024'],
  inject: async stage => {
    const primary = await startRedis({ args: ['--repl-diskless-sync-delay', '0'] })
    stage.onClose(primary.stop)
    await withClient(primary.port, async client => {
      for (let i = 0; i < 60; i++) await client.mset(Object.fromEntries(Array.from({ length: 100 }, (_, j) => [`full:${i}:${j}`, 'x'.repeat(1000)])))
    })
    await stage.admin(async client => await client.call('REPLICAOF', '127.0.0.1', String(primary.port)))
    // Asked on the connections that were open before: a new one would wait for the end of loading.
    const [{ connection } = never()] = stage.replicas
    await until('loading', async () => await connection.client.get('any').then(() => false, (error: Error) => error.message.startsWith('LOADING')))
  },
  heal: async ({ admin }) => {
    await until('loaded', async () => await admin(async client => /^loading:0/m.test(await client.info('persistence'))))
    await admin(async client => await client.call('REPLICAOF', 'NO', 'ONE'))
  },
  met: /LOADING/
}

const clusterDown: Fault = {
  id: 'B1-08',
  name: 'CLUSTERDOWN: the slot is served by nobody',
  memory: 'kept',
  args: ['--cluster-enabled', 'yes', '--cluster-require-full-coverage', 'no'],
  prepare: async ({ admin }) => { await admin(async client => await client.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383')) },
  inject: async ({ admin }) => { await admin(async client => await client.call('CLUSTER', 'DELSLOTSRANGE', '0', '16383')) },
  heal: async ({ admin }) => { await admin(async client => await client.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383')) },
  met: /CLUSTERDOWN/
}

const noAuth: Fault = {
  id: 'B1-08',
  name: 'NOAUTH: a password is set and all connections are cut',
  memory: 'kept',
  inject: async ({ admin }) => {
    await admin(async client => {
      await client.config('SET', 'requirepass', 'secret')
      await client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    })
  },
  heal: async ({ redis }) => { await withClient(redis.port, async client => await client.config('SET', 'requirepass', ''), 'secret') }
}

/** Faults that take Redis away as a whole and give it back. */
export const faults: Fault[] = [kill, stop, blackHole, outOfMemory, readOnly, busy, loading, clusterDown, noAuth]

function never (): never {
  throw new Error('a stage has replicas')
}
