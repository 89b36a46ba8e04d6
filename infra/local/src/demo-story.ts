import { setTimeout as delay } from 'node:timers/promises'
import type { KeyServiceClient } from './key-service-client.ts'
import { LocalError, messageOf } from './local-error.ts'
import type { LocalRun } from './local-file.ts'

const calls = 25
const limit = 20

export interface Call { gateway: number, status: number, rateLimit: string, retryAfter: string }

export interface Story {
  calls: Call[]
  /** From the first call's start to the last one's end. */
  milliseconds: number
  /** How long the replaced secret went on; null where the change was everywhere when it was answered. */
  lagMilliseconds: number | null
  /** The answers to the secret that was replaced, one per gateway, and to its successor. */
  oldSecret: Call[]
  newSecret: Call[]
}

/**
 * Seed 001 as a story: a key of its own with 20 calls per minute makes 25, over all gateways in turn; then its secret is replaced.
 * Without Redis the gateway learns of that by itself, and the story waits for it.
 * The key is deleted afterwards, also when the story breaks off.
 */
export async function playStory (run: LocalRun, keyService: KeyServiceClient): Promise<Story> {
  const keys = `/v1/projects/${run.projectId}/keys`
  const policies = [{ name: 'default', limit, windowSeconds: 60 }]
  const key = await keyService.send<{ id: string, secret: string }>('POST', keys, { name: 'Demo story', allowedForAll: true, policies })
  try {
    // Connections are opened beforehand. The headers count seconds from the first call, so a story that takes less than one second
    // reads the same each time (it takes about a tenth).
    await Promise.all(run.gateways.map(async gateway => await fetch(`${gateway}/livez`).then(async answer => await answer.text())))
    const begin = performance.now()
    const made: Call[] = []
    for (let index = 0; index < calls; index++) made.push(await call(run, index % run.gateways.length, key.secret))
    const milliseconds = performance.now() - begin

    const rotated = await keyService.send<{ secret: string, effective: string }>('POST', `${keys}/${key.id}/rotate`, {})
    const everywhere = rotated.effective === 'everywhere'
    if (!everywhere && run.redis !== null) throw new LocalError(`key-service says that the new secret is "${rotated.effective}", not "everywhere": does Redis answer?`)
    const lagMilliseconds = everywhere ? null : await untilRefused(run, key.secret)
    return {
      calls: made,
      milliseconds,
      lagMilliseconds,
      oldSecret: await onEach(run, key.secret),
      newSecret: await onEach(run, rotated.secret)
    }
  } finally {
    await keyService.send('DELETE', `${keys}/${key.id}`)
  }
}

/** What does not match the story, in words; nothing when it held. */
export function contradictions ({ calls: made, oldSecret, newSecret }: Story): string[] {
  const faults: string[] = []
  const expect = (what: string, list: Call[], status: number) => {
    for (const one of list) if (one.status !== status) faults.push(`${what} on gateway ${one.gateway}: expected ${status}, got ${one.status}`)
  }
  expect('a call within the limit', made.slice(0, limit), 200)
  expect('a call beyond the limit', made.slice(limit), 429)
  expect('the old secret', oldSecret, 401)
  expect('the new secret', newSecret, 429)
  return faults
}

/** Waits until no gateway takes the secret any more, at most ten times as long as it should take: what is wrong then shows in the story. */
async function untilRefused (run: LocalRun, secret: string): Promise<number> {
  const begin = performance.now()
  while (performance.now() - begin < 10_000) {
    const answers = await onEach(run, secret)
    if (answers.every(({ status }) => status === 401)) break
    await delay(50)
  }
  return performance.now() - begin
}

async function onEach (run: LocalRun, secret: string): Promise<Call[]> {
  const answers: Call[] = []
  for (let gateway = 0; gateway < run.gateways.length; gateway++) answers.push(await call(run, gateway, secret))
  return answers
}

async function call (run: LocalRun, gateway: number, secret: string): Promise<Call> {
  const url = `${run.gateways[gateway]}${run.example}`
  const authorization = `Basic ${Buffer.from(`${run.projectId}:${secret}`).toString('base64')}`
  try {
    const answer = await fetch(url, { headers: { authorization } })
    await answer.arrayBuffer()
    const header = (name: string) => answer.headers.get(name) ?? ''
    return { gateway: gateway + 1, status: answer.status, rateLimit: header('ratelimit'), retryAfter: header('retry-after') }
  } catch (error) {
    throw new LocalError(`Gateway ${gateway + 1} at ${run.gateways[gateway]} does not answer (${messageOf((error as Error).cause ?? error)}).`)
  }
}
