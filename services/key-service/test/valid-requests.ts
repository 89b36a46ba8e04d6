import { createLender, type Lender } from './fuzz/living.ts'
import { operationsOf, type Document } from './fuzz/operations.ts'
import { createRandom } from './fuzz/random.ts'
import { acceptable, urlOf } from './fuzz/request.ts'
import type { Makers } from './fuzz/values.ts'
import type { World } from './fuzz/world.ts'

/** A request that whoever may do it is answered 2xx, without who asks. */
export interface ValidRequest {
  method: string
  /** Below `/v1`. */
  path: string
  headers: Record<string, string>
  body: unknown
  /** The project in its path, if there is one. */
  projectId: string | undefined
  /** Gives back what it is about, unless it is used up. */
  done: (wasAccepted: boolean) => void
}

/** @param route as the router names it: `HEAD /v1/projects/:projectId`. `values`: by name in lower case, what only this caller may send. */
export type TakeRequest = (route: string, projectId: string, values?: Makers) => Promise<ValidRequest>

/**
 * Valid requests, made from the OpenAPI document and about what lives in a project. What is not used up serves everybody who asks.
 *
 * @param worldOf where an operation makes what it is about.
 */
export function createRequests (document: Document, worldOf: (projectId: string, operationId: string) => World): TakeRequest {
  const operations = new Map(operationsOf(document).map(operation => [`${operation.method} ${operation.path.replaceAll(/\{(\w+)\}/g, ':$1')}`, operation]))
  const lenders = new Map<string, Lender>()
  let made = 0
  return async (route, projectId, values = {}) => {
    const [method = ''] = route.split(' ')
    const operation = operations.get(route.replace('HEAD ', 'GET '))
    if (operation === undefined) throw new Error(`the document lacks ${route}`)
    const place = `${route} ${projectId}`
    const lender = lenders.get(place) ?? createLender(operation, worldOf(projectId, operation.id))
    lenders.set(place, lender)
    const living = await lender.take()
    // All that is likely and nothing that is rare: every optional member, no null where there can be a value.
    const random = { ...createRandom(`${place} ${made++}`), chance: (probability: number) => probability >= 0.5 }
    const request = acceptable(operation, { ...living, values: { ...living.values, ...values } }, random, 'inside')
    const { cookie: _ofTheLiving, ...headers } = request.header
    return {
      method,
      path: urlOf(operation, request).slice('/v1'.length),
      headers: { ...headers, ...request.body !== undefined && { 'content-type': operation.body?.contentType ?? 'application/json' } },
      body: request.body,
      projectId: request.path['projectId'],
      done: wasAccepted => { lender.done(living, wasAccepted) }
    }
  }
}
