import type { Api, Operation } from '@keygate/api-catalog'
import type { ListedPaths, Standing } from './listed-paths.ts'
import { parseTemplate, placeOf, type PathTemplate } from './path-template.ts'

/** An API with what every request to it needs, worked out once. */
export interface ApiTarget {
  api: Api
  /** Scheme, host and port of the upstream. */
  origin: string
  /** The upstream's path before the operation's, without a slash at its end. */
  basePath: string
}

/** A path that the document lists. */
export interface ListedTarget extends ApiTarget {
  template: PathTemplate
  /** Of all that its API lists. */
  listed: ListedPaths
  /** Among them; absent where the template has no parameters. */
  standing: Standing | undefined
}

/** An operation that a request can be for. */
export interface OperationTarget extends ListedTarget {
  kind: 'operation'
  operation: Operation
  /** Where among the path's parameters the project stands. */
  projectPlace: string | null
  /** All that its path has. */
  methods: readonly string[]
}

/** A path below the prefix that the document does not list, of an API that says `unlisted: forward`. */
export interface UnlistedTarget extends ApiTarget {
  kind: 'unlisted'
  /** What it must not be another spelling of. */
  listed: ListedPaths
}

/** OPTIONS of a listed path, when the document has no such operation: a browser's preflight, or nothing. */
export interface OptionsTarget extends ListedTarget { kind: 'options', methods: readonly string[] }

/** What the gateway tells of an API itself: its document, and a page made of it. */
export interface PublishedTarget extends ApiTarget { kind: 'document' | 'docs' }

export type Target = OperationTarget | UnlistedTarget | OptionsTarget | PublishedTarget

export function apiTarget (api: Api): ApiTarget {
  const { origin, pathname } = new URL(api.upstream)
  return { api, origin, basePath: pathname.replace(/\/$/, '') }
}

export function operationTarget (of: ApiTarget, operation: Operation, { listed, standing, methods }: Pick<OperationTarget, 'listed' | 'standing' | 'methods'>): OperationTarget {
  const template = parseTemplate(operation.path)
  return { kind: 'operation', ...of, operation, template, listed, standing, projectPlace: placeOf(of.api.projectParameter, template), methods }
}
