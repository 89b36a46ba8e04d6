import type { FastifyInstance } from 'fastify'
import { damaged, type Damage } from './damage.ts'
import type { Judge } from './judge.ts'
import { createLender } from './living.ts'
import type { Operation } from './operations.ts'
import { createRandom, type Random } from './random.ts'
import { acceptable, send, urlOf, type Answer, type Request } from './request.ts'
import type { World } from './world.ts'

export interface FuzzOptions { app: FastifyInstance, token: string, world: World, judge: Judge, seed: string, requests: number }

export interface Outcome {
  accepted: number
  /** How often each status was answered. */
  statuses: Map<number, number>
  /** Each with all that is needed to see it again, in at most 2 kB. */
  faults: string[]
  /** The first request that should have been accepted and was not, to tell what a value maker lacks. */
  firstRefusal: string | undefined
}

export type Kind = 'valid' | 'boundary' | Damage

/** How the kinds share a hundred requests. */
const shares: Array<[Kind, number]> = [['valid', 30], ['boundary', 22], ['broken field', 9], ['wrong type', 10], ['missing field', 4], ['extra field', 5], ['oversize', 4], ['hostile', 16]]
const order: Kind[] = shares.flatMap(([kind, share]) => Array.from({ length: share }, () => kind))

const concurrency = 8

/** The same seed gives the same requests, whatever else runs; only the ids that they are about are new each time. */
export async function fuzz (operation: Operation, options: FuzzOptions): Promise<Outcome> {
  const { app, token, world, judge, seed, requests } = options
  const lender = createLender(operation, world)
  const outcome: Outcome = { accepted: 0, statuses: new Map(), faults: [], firstRefusal: undefined }

  const one = async (index: number): Promise<void> => {
    const random = createRandom(`${seed} ${operation.id} ${index}`)
    const kind = random.pick(order)
    const living = await lender.take()
    const request = requestOf(kind, acceptable(operation, living, random, kind === 'boundary' ? 'edge' : 'inside'), operation, random)
    const answer = await send(app, operation, request, token)
    const wasAccepted = answer.status >= 200 && answer.status < 300
    lender.done(living, wasAccepted)
    if (wasAccepted) outcome.accepted++
    outcome.statuses.set(answer.status, (outcome.statuses.get(answer.status) ?? 0) + 1)
    const story = (): string => tell(operation, `seed ${seed}, request ${index}, ${kind}`, request, answer)
    const faults = judge(operation, answer)
    if (faults.length > 0) outcome.faults.push(`${faults.join('; ')}\n${story()}`)
    if (!wasAccepted && (kind === 'valid' || kind === 'boundary')) outcome.firstRefusal ??= story()
  }

  let next = 0
  await Promise.all(Array.from({ length: concurrency }, async () => {
    while (next < requests) await one(next++)
  }))
  return outcome
}

function requestOf (kind: Kind, request: Request, operation: Operation, random: Random): Request {
  if (kind === 'valid' || kind === 'boundary') return request
  return damaged(operation, request, kind, random) ?? damaged(operation, request, 'hostile', random) ?? request
}

/** A request and its answer for people, each cut to what a screen holds. */
export function tell (operation: Operation, label: string, request: Request, answer: Answer): string {
  const cut = (text: string, length: number): string => text.length > length ? `${text.slice(0, length)}... (${text.length} characters)` : text
  return [
    `${operation.id}: ${label}`,
    `${operation.method} ${cut(urlOf(operation, request), 400)}`,
    cut(JSON.stringify(request.header), 200),
    cut(JSON.stringify(request.body) ?? 'no body', 500),
    `-> ${answer.status} ${cut(answer.text, 600)}`
  ].join('\n')
}
