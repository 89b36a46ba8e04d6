import { setImmediate } from 'node:timers/promises'
import type { Api, Catalogue, Operation } from '@keygate/api-catalog'
import Router from 'find-my-way'
import { ListedPaths, mayBeSibling, type Standing } from './listed-paths.ts'
import { comparablePath, pathOf, routerPath, type PathParameters } from './path-template.ts'
import { apiTarget, operationTarget, type ApiTarget, type ListedTarget, type OperationTarget, type Target, type UnlistedTarget } from './target.ts'

/** What a request is for, with the values of its path's parameters. */
export interface Match {
  target: Target
  parameters: PathParameters
  /** As it was asked for: path and query. */
  url: string
}

/** The methods that are let in at all (GX-30); what a document lists under another is not reachable. */
export const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const

export type Method = typeof methods[number]

/** Longer values of a path's parameter match nothing. */
const longestParameter = 1000

/** How long `inSlices` keeps others waiting, milliseconds. */
const sliceMs = 2

/**
 * Step 1: which operation of the catalogue a method and path name. One table is what is enforced, published and printed.
 *
 * The router is Fastify's own, but one that can be made anew while requests run: Fastify's routes are fixed at its start, and the
 * catalogue is not. A concrete path goes before a templated one, as OpenAPI wants it.
 */
export class RoutingTable {
  readonly catalogue: Catalogue
  /**
   * Paths that end with a slash have a router of their own: in the other one a parameter at the end would match nothing at all, and `/items/`
   * would be one of the items. Neither is compiled: that takes most of the time that a table takes, and no search becomes faster.
   */
  readonly #routers = { plain: Router({ maxParamLength: longestParameter }), slashed: Router({ maxParamLength: longestParameter }) }
  readonly #taken = new Set<string>()

  /** Of thousands of operations it is made in a second or so; where requests wait meanwhile, see `inSlices`. */
  constructor (catalogue: Catalogue, { isEmpty = false } = {}) {
    this.catalogue = catalogue
    if (!isEmpty) Array.from(this.#steps())
  }

  /** Makes the same table, and lets whatever else is to be done have its turn meanwhile. */
  static async inSlices (catalogue: Catalogue): Promise<RoutingTable> {
    const table = new RoutingTable(catalogue, { isEmpty: true })
    const steps = table.#steps()
    let from = performance.now()
    while (steps.next().done === false) {
      if (performance.now() - from < sliceMs) continue
      await setImmediate()
      from = performance.now()
    }
    return table
  }

  /** @param url path and query, the path in plain form. `null`: there is nothing. */
  match (method: string, url: string): Match | null {
    const query = url.indexOf('?')
    const path = query === -1 ? url : url.slice(0, query)
    const router = path.endsWith('/') ? this.#routers.slashed : this.#routers.plain
    const found = router.find(method as Method, comparablePath(path))
    if (found === null) return null
    const target = found.store as Target
    if (target.kind === 'unlisted' ? !isUnlisted(target, path) : 'standing' in target && isSpelledOtherwise(target, found.params)) return null
    return { target, parameters: found.params, url }
  }

  * #steps (): Generator<void> {
    for (const api of this.catalogue.apis) yield * this.#addApi(apiTarget(api))
  }

  * #addApi (of: ApiTarget): Generator<void> {
    const { api: { prefix, operations, unlisted } } = of
    const listed = new ListedPaths()
    for (const { path } of operations) {
      yield
      listed.add(path)
    }
    for (const path of ownPaths(of.api)) listed.add(path, { isOwn: true })
    const reachable: Array<{ operation: Operation, path: string }> = []
    const standings = new Map<string, Standing | undefined>()
    const methodsAt = new Map<string, Set<Method>>()
    for (const operation of operations.filter(isReachable)) {
      yield
      const path = routerPath(prefix, operation.path)
      reachable.push({ operation, path })
      if (!standings.has(operation.path)) standings.set(operation.path, listed.standingOf(operation.path))
      methodsAt.set(path, (methodsAt.get(path) ?? new Set()).add(operation.method as Method))
    }
    const targetOf = ({ operation, path }: typeof reachable[number]): OperationTarget =>
      operationTarget(of, operation, { listed, standing: standings.get(operation.path), methods: withImplied(methodsAt.get(path)) })
    for (const one of reachable) {
      yield
      this.#add(one.operation.method as Method, one.path, targetOf(one))
    }
    // A GET answers HEAD, and a listed path answers a preflight, unless the document lists these itself.
    for (const one of reachable) {
      yield
      const target = targetOf(one)
      const { template, standing, methods } = target
      if (one.operation.method === 'GET') this.#add('HEAD', one.path, target)
      this.#add('OPTIONS', one.path, { ...of, kind: 'options', template, listed, standing, methods })
    }
    for (const method of ['GET', 'HEAD'] as const) {
      this.#add(method, `${prefix}/openapi.json`, { ...of, kind: 'document' })
      this.#add(method, `${prefix}/docs`, { ...of, kind: 'docs' })
    }
    if (unlisted === 'deny') return
    const target: Target = { ...of, kind: 'unlisted', listed }
    for (const method of methods) {
      if (prefix !== '') this.#add(method, prefix, target)
      this.#add(method, `${prefix}/*`, target)
    }
  }

  /** The first target of a method and path stays. */
  #add (method: Method, path: string, target: Target): void {
    const key = `${method} ${path}`
    if (this.#taken.has(key)) return
    this.#taken.add(key)
    if (!path.endsWith('/')) this.#routers.plain.on(method, path, nothing, target)
    if (path.endsWith('/') || path.endsWith('/*')) this.#routers.slashed.on(method, path, nothing, target)
  }
}

/** What the gateway answers itself, below the API's prefix. */
function ownPaths ({ prefix }: Api): string[] {
  return ['/openapi.json', '/docs', ...(prefix === '' ? ['/livez', '/readyz', '/.keygate', '/.keygate/{any}'] : [])]
}

/** Whether its upstream may take a request that matched a template for one that a more concrete template lists. */
function isSpelledOtherwise ({ template, listed, standing }: ListedTarget, parameters: PathParameters): boolean {
  return standing !== undefined && mayBeSibling(standing, parameters) && listed.hasSibling(pathOf(template, parameters), standing)
}

/** Its prefix must be written as the catalogue writes it, since what stands behind it is what the upstream is asked for. */
function isUnlisted ({ api: { prefix }, listed }: UnlistedTarget, path: string): boolean {
  return path.startsWith(prefix) && !listed.has(path.slice(prefix.length))
}

function withImplied (listed: Set<Method> = new Set()): Method[] {
  return methods.filter(method => listed.has(method) || (method === 'HEAD' && listed.has('GET')) || method === 'OPTIONS')
}

function isReachable ({ method }: Operation): boolean {
  return methods.includes(method as Method)
}

/** The router wants a handler; what was found is read from its store. */
function nothing (): void {}
