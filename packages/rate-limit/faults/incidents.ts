import { setTimeout as delay } from 'node:timers/promises'
import { startRedis } from '@keygate/local'
import type { Fault } from './redis-faults.ts'
import { untilAll, type Stage } from './stage.ts'

const flush: Fault = {
  id: 'B1-04',
  name: 'FLUSHALL and SCRIPT FLUSH',
  memory: 'lost',
  inject: async ({ admin }) => { await admin(async client => { await client.flushall(); await client.script('FLUSH') }) },
  heal: async () => {}
}

/** The stage has already reached Redis, so its first one goes, and replicas are left with none until another comes. */
const late: Fault = {
  id: 'B1-11',
  name: 'absent for 2 s, then an empty one',
  memory: 'lost',
  inject: async stage => {
    await stage.redis.kill()
    await stage.redis.stop()
    await delay(2000)
  },
  heal: async stage => { stage.redis = await startRedis({ port: stage.redis.port }) }
}

const signal = ({ redis }: Stage, name: NodeJS.Signals): void => { process.kill(redis.pid, name) }

const flapping: Fault = {
  id: 'B1-12',
  name: 'flapping: 10 x (SIGSTOP 1 s, SIGCONT 1 s)',
  memory: 'kept',
  inject: async stage => {
    for (let i = 0; i < 10; i++) {
      signal(stage, 'SIGSTOP')
      await delay(1000)
      signal(stage, 'SIGCONT')
      await delay(1000)
    }
    await untilAll(stage, 'shared')
  },
  heal: async () => {}
}

const reset: Fault = {
  id: 'B1-14',
  name: 'all connections reset under load',
  memory: 'kept',
  proxied: true,
  inject: async ({ proxy }) => { proxy?.reset() },
  heal: async () => {}
}

/** Faults that are over by themselves, or come too often to be taken step by step. */
export const incidents: Fault[] = [flush, late, flapping, reset]
